from pathlib import Path

import numpy as np
import pytest

from flyweight.data.records import BoxRecord, BoxSet, as_boxes


@pytest.fixture
def tiny_set():
    """Return a builder of a detection set of made images, a box in the first, two in the next."""

    def build(labels=("cat", "dog"), *, difficult=(), crowd=(), boxes=None, paths=None):
        rows = boxes or [[[1, 2, 11, 12]], [[3, 4, 30, 20], [5, 6, 20, 14]]]
        records = tuple(
            BoxRecord(
                path=None if paths is None else paths[index],
                height=24,
                width=32,
                boxes=as_boxes(mine),
                labels=np.arange(len(mine)) % len(labels),
                difficult=np.array([(index, n) in difficult for n in range(len(mine))], dtype=bool),
                crowd=np.array([(index, n) in crowd for n in range(len(mine))], dtype=bool),
                lines=tuple(range(1, len(mine) + 1)),
                annotation=Path("made"),
            )
            for index, mine in enumerate(rows)
        )

        def image(index):
            return np.full((24, 32, 3), 40 + index, dtype=np.uint8)

        return BoxSet("tiny/train", labels, records, image if paths is None else None)

    return build
