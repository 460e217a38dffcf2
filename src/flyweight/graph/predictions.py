"""Predictions of a run after a cut: every size as a function of the channels that stay.

A trial cut is run on shapes alone and compared with its prediction, operation by operation. The
first operation that differs shows where the model's code does not follow the cut.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flyweight.graph.cost import AxisSize
from flyweight.graph.program import Call

Sizes = tuple[AxisSize, ...]
Place = tuple[int, int, int, int]
"""A run, a call, one of its tensors (results, then arguments, then a slice's ends), and an axis."""

_ARITHMETIC_NAMES = """
    add sub rsub mul div true_divide floor_divide remainder fmod pow lerp addcmul addcdiv clamp
    clamp_min clamp_max eq ne lt le gt ge where masked_fill fill maximum minimum multiply divide
    subtract threshold hardtanh leaky_relu elu softplus celu
"""
_ARITHMETIC = frozenset(_ARITHMETIC_NAMES.split())
"""Operations whose whole numbers are values; of others they are sizes, axes and positions."""
_FILLED = frozenset({"full", "new_full", "full_like"})


@dataclass(frozen=True, eq=False)
class Prediction:
    """One call of the dense run, with every size as a function of what stays.

    Attributes:
        op: The operation.
        where: Path of the module that ran it.
        results: Sizes of its results.
        sources: Sizes of its tensor arguments.
        window: First position that a slice takes and the one after its last.
        numbers: The values among its arguments that are numbers, from `numbers_of`.
        known: Its arguments that the code computed from sizes and numbers, see `Call.known`.
    """

    op: str
    where: str
    results: tuple[Sizes, ...]
    sources: tuple[Sizes, ...]
    window: Sizes = ()
    numbers: tuple[Any, ...] = ()
    known: tuple[Tensor, ...] = ()

    def sizes(self) -> Iterator[tuple[tuple[int, int], AxisSize]]:
        """Yield every size that can change with its tensor and axis."""
        for tensor, sizes in enumerate((*self.results, *self.sources, self.window)):
            for axis, size in enumerate(sizes):
                if size.shares:
                    yield (tensor, axis), size

    def is_window(self, tensor: int) -> bool:
        """Whether the tensor of a place stands for the ends of a slice."""
        return tensor >= len(self.results) + len(self.sources)

    def size(self, tensor: int, axis: int) -> AxisSize | None:
        """Return one size, or `None` where there is no such axis."""
        every = (*self.results, *self.sources, self.window)
        inside = tensor < len(every) and axis < len(every[tensor])
        return every[tensor][axis] if inside else None


class LeftPredictionError(Exception):
    """Ends a trial run at the first operation that does not run as predicted."""


class OtherValueError(LeftPredictionError):
    """Ends a trial run at an operation that computes with another number than the dense run."""


class PredictionCheck:
    """Compares a run with its prediction, call by call; the first difference ends the run.

    Args:
        predictions: Of every call, in order.
        kept: Channels that stay, by group.
        values: Whether the run is on values, not on shapes alone.
        exact: Whether the cut must be exact, so that numbers in the code keep their values.

    Attributes:
        count: How many calls ran as predicted, which is the place of the next one.
        comparable: Whether the calls still correspond to the predictions.
    """

    def __init__(
        self,
        predictions: tuple[Prediction, ...],
        kept: Mapping[str, int],
        *,
        values: bool,
        exact: bool = False,
    ) -> None:
        self._predictions, self._kept, self._values = predictions, kept, values
        self._exact = exact and not values
        self._index = 0
        self._last = ""
        self.comparable = True
        self.count = 0

    def __call__(self, call: Call) -> None:
        """Compare the next call.

        Raises:
            LeftPredictionError: It differs.
            OtherValueError: Its sizes are as predicted, and it computes with other numbers.
        """
        if call.is_step:
            self._last = call.where
        if not self.comparable or not call.is_step:
            return
        index, self._index = self._index, self._index + 1
        self.count = min(index, len(self._predictions) - 1)
        expected = self._predictions[self.count]
        shapes = [value.shape for value in call.results]
        if index > self.count or not self._same_call(call, expected, shapes):
            if not self._values:
                raise LeftPredictionError
            # A cut changes values, and other values may choose other proposals: from here on the
            # calls correspond to no prediction. This is no reason against the cut.
            self.comparable = False
            return
        fits = len(shapes) == len(expected.results) and all(
            map(self._fits, shapes, expected.results)
        )
        if not fits:
            raise LeftPredictionError
        # A slice of the predicted size may still begin at the wrong channel.
        if expected.window and not self._fits(_window(call), expected.window):
            raise LeftPredictionError
        if self._exact and not _same_values(call, expected):
            raise OtherValueError
        self.count = index + 1

    def place_of_failure(self) -> int:
        """Return the place of the call that failed, or one of the same module where none fits."""
        if self.comparable:
            return self.count
        later = range(self.count, len(self._predictions))
        inside = (place for place in later if self._predictions[place].where == self._last)
        return next(inside, self.count)

    def _same_call(self, call: Call, expected: Prediction, shapes: list[tuple[int, ...]]) -> bool:
        """Whether a call corresponds to its prediction, whatever its sizes are."""
        if (expected.op, expected.where) != (call.op, call.where):
            return False
        # Of values, the branch of another case often begins with the same operation.
        return not self._values or list(map(len, shapes)) == list(map(len, expected.results))

    def _fits(self, shape: tuple[int, ...], sizes: Sizes) -> bool:
        return len(shape) == len(sizes) and all(
            have == size.under(self._kept)
            for have, size in zip(shape, sizes, strict=True)
            if size.shares or not self._values
        )


def numbers_of(call: Call) -> tuple[Any, ...]:
    """Return the values among the arguments of a call that are numbers, not sizes or axes."""
    if call.op in _FILLED:
        return (call.arguments["fill_value"],)
    if call.op in _ARITHMETIC:
        return call.constants
    return tuple(one for one in call.constants if isinstance(one, float))


def _same_values(call: Call, expected: Prediction) -> bool:
    """Whether a call computes with the numbers and constants that the dense run had."""
    if call.op in ("linspace", "logspace"):
        changed = any(size.shares for sizes in expected.results for size in sizes)
        return not changed and numbers_of(call) == expected.numbers
    if numbers_of(call) != expected.numbers or len(call.known) != len(expected.known):
        return False
    pairs = zip(expected.known, call.known, strict=True)
    return all(_begins(whole, part) for whole, part in pairs if _is_value(call, whole))


def _is_value(call: Call, constant: Tensor) -> bool:
    """Whether a constant is computed with; whole numbers elsewhere are positions to look up.

    What is looked up is followed by the rules.
    """
    return call.op in _ARITHMETIC or constant.dtype.is_floating_point


def _begins(whole: Tensor, part: Tensor) -> bool:
    """Whether a constant is the beginning of another along every axis: a trial cuts the rest."""
    if whole.ndim != part.ndim or whole.dtype != part.dtype:
        return False
    if any(have > size for have, size in zip(part.shape, whole.shape, strict=True)):
        return False
    start = whole[tuple(slice(size) for size in part.shape)]
    return bool(torch.equal(start, part))


def slice_window(size: int, start: int | None, end: int | None) -> tuple[int, int]:
    """Return the first position that a slice takes and the one after its last."""
    first, last, _ = slice(start, end).indices(size)
    return first, max(first, last)


def _window(call: Call) -> tuple[int, int]:
    source = call.arguments["self"]
    size = source.shape[int(call.arguments.get("dim", 0))]
    return slice_window(size, call.arguments.get("start"), call.arguments.get("end"))
