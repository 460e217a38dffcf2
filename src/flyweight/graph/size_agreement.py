"""Agreement of runs: channels that lie at other places when an image has another size.

A view that writes `(batch, positions, channels)` back as `(batch, channels, rows, columns)` without
a transpose ties channels in a way that depends on the number of positions. What one size shows is
exact at that size alone, so the channels whose ties differ between sizes are frozen.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flyweight.graph.identity import Identities, Ids

Labels = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Mark:
    """How much stood in the identities at one moment.

    Attributes:
        count: Identities.
        joined: Joins.
        boxes: Boxes.
    """

    count: int
    joined: int
    boxes: int

    @classmethod
    def of(cls, identities: Identities) -> "Mark":
        """Return the mark of this moment."""
        return cls(identities.count, len(identities.joined), len(identities.boxes))


def disagreement(before: Labels, after: Labels, known: Labels) -> Labels:
    """Return the labels `before` of components that became one component in `after`.

    Args:
        before: The component of every identity that existed then.
        after: The components now; further identities stand at the end.
        known: The components of tensors that were read before; others had no chance to be tied.
    """
    read = np.isin(before, known)
    pairs = np.unique(np.stack([after[: len(before)][read], before[read]]), axis=1)
    merged, times = np.unique(pairs[0], return_counts=True)
    found: Labels = pairs[1][np.isin(pairs[0], merged[times > 1])]
    return found


def first_to_join(
    identities: Identities, before: Labels, known: Labels, marks: list[Mark]
) -> int | None:
    """Return the index of the first of `marks` at which components of `before` became one."""
    low, high = 0, len(marks)
    while low < high:
        middle = (low + high) // 2
        trial = Identities(
            identities.count,
            identities.joined[: marks[middle].joined],
            boxes=identities.boxes[: marks[middle].boxes],
        )
        if len(disagreement(before, trial.components(), known)):
            high = middle
        else:
            low = middle + 1
    return low if low < len(marks) else None


def take_back(identities: Identities, before: Labels, apart: Labels, start: Mark) -> Ids:
    """Take back what was joined after `start` of the components `apart`.

    Returns:
        The identities of these components.
    """
    whole = np.zeros(identities.count, dtype=bool)
    whole[: len(before)] = np.isin(before, apart)
    kept = []
    for left, right in identities.joined[start.joined :]:
        staying = ~(whole[left] | whole[right])
        kept.append((left[staying], right[staying]))
    identities.joined[start.joined :] = kept
    boxes = identities.boxes[start.boxes :]
    identities.boxes[start.boxes :] = [ids for ids in boxes if not whole[ids].any()]
    found: Ids = np.flatnonzero(whole)
    return found
