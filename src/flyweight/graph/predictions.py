"""Predictions of a run after a cut: every size as a function of the channels that stay.

A trial cut is run on shapes alone and compared with its prediction, operation by operation. The
first operation that differs shows where the model's code does not follow the cut.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from flyweight.graph.cost import AxisSize
from flyweight.graph.program import Call

Sizes = tuple[AxisSize, ...]
Place = tuple[int, int, int]
"""A call, one of its tensors (results, then arguments, then a slice's ends), and an axis."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """One call of the dense run, with every size as a function of what stays.

    Attributes:
        op: The operation.
        where: Path of the module that ran it.
        results: Sizes of its results.
        sources: Sizes of its tensor arguments.
        window: First position that a slice takes and the one after its last.
    """

    op: str
    where: str
    results: tuple[Sizes, ...]
    sources: tuple[Sizes, ...]
    window: Sizes = ()

    def sizes(self) -> Iterator[tuple[tuple[int, int], AxisSize]]:
        """Yield every size that can change with its tensor and axis."""
        for tensor, sizes in enumerate((*self.results, *self.sources, self.window)):
            for axis, size in enumerate(sizes):
                if size.shares:
                    yield (tensor, axis), size

    def size(self, tensor: int, axis: int) -> AxisSize | None:
        """Return one size, or `None` where there is no such axis."""
        every = (*self.results, *self.sources, self.window)
        inside = tensor < len(every) and axis < len(every[tensor])
        return every[tensor][axis] if inside else None


class LeftPredictionError(Exception):
    """Ends a trial run at the first operation that does not run as predicted."""


class PredictionCheck:
    """Compares a run with its prediction, call by call; the first difference ends the run.

    Args:
        predictions: Of every call, in order.
        kept: Channels that stay, by group.
        values: Whether the run is on values, not on shapes alone.

    Attributes:
        count: How many calls ran as predicted, which is the place of the next one.
    """

    def __init__(
        self, predictions: tuple[Prediction, ...], kept: Mapping[str, int], *, values: bool
    ) -> None:
        self._predictions, self._kept, self._values = predictions, kept, values
        self._index = 0
        self._comparable = True
        self.count = 0

    def __call__(self, call: Call) -> None:
        """Compare the next call.

        Raises:
            LeftPredictionError: It differs.
        """
        if not self._comparable or not call.is_step:
            return
        index, self._index = self._index, self._index + 1
        self.count = min(index, len(self._predictions) - 1)
        expected = self._predictions[self.count]
        if index > self.count or (expected.op, expected.where) != (call.op, call.where):
            if not self._values:
                raise LeftPredictionError
            # A cut changes values, and other values may choose other proposals: from here on the
            # calls correspond to no prediction. This is no reason against the cut.
            self._comparable = False
            return
        shapes = [value.shape for value in call.results]
        fits = len(shapes) == len(expected.results) and all(
            map(self._fits, shapes, expected.results)
        )
        if not fits:
            raise LeftPredictionError
        # A slice of the predicted size may still begin at the wrong channel.
        if expected.window and not self._fits(_window(call), expected.window):
            raise LeftPredictionError
        self.count = index + 1

    def _fits(self, shape: tuple[int, ...], sizes: Sizes) -> bool:
        return len(shape) == len(sizes) and all(
            have == size.under(self._kept)
            for have, size in zip(shape, sizes, strict=True)
            if size.shares or not self._values
        )


def slice_window(size: int, start: int | None, end: int | None) -> tuple[int, int]:
    """Return the first position that a slice takes and the one after its last."""
    first, last, _ = slice(start, end).indices(size)
    return first, max(first, last)


def _window(call: Call) -> tuple[int, int]:
    source = call.arguments["self"]
    size = source.shape[int(call.arguments.get("dim", 0))]
    return slice_window(size, call.arguments.get("start"), call.arguments.get("end"))
