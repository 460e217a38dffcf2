"""The layers of a network that are timed, and the widths that each is timed at."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import lcm

from flyweight.graph.cost import AxisSize, Geometry
from flyweight.graph.model_graph import ModelGraph

Widths = tuple[int, int]
"""Channels that a layer reads, and channels that it makes."""
_SHARES = (0.125, 0.25, 0.5, 0.75)


@dataclass(frozen=True)
class TimedLayer:
    """One layer of a network.

    Attributes:
        name: The module it runs in.
        geometry: Everything but widths.
        inputs: Channels read, as a function of what stays.
        outputs: Channels made.
        full: Both in the dense network.
        free: Whether each can become less.
    """

    name: str
    geometry: Geometry
    inputs: AxisSize
    outputs: AxisSize
    full: Widths
    free: tuple[bool, bool]

    def axes(self, step: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the widths to time, of inputs and of outputs, in rising order.

        Args:
            step: Multiple of channels that is fast.
        """
        if self.geometry.groups > 1:
            step = lcm(step, self.geometry.groups)
        reads, makes = (
            _widths(full, step) if free else (full,)
            for full, free in zip(self.full, self.free, strict=True)
        )
        return reads, makes

    def points(self, step: int) -> tuple[Widths, ...]:
        """Return every pair of widths to time; a depthwise layer makes what it reads."""
        reads, makes = self.axes(step)
        if self.depthwise:
            return tuple(self.tied(each) for each in reads)
        return tuple((one, other) for one in reads for other in makes)

    @property
    def depthwise(self) -> bool:
        """Whether every input channel is a group of its own."""
        return self.geometry.groups == 0

    def tied(self, inputs: int) -> Widths:
        """Return the widths of a depthwise layer that reads so many channels."""
        return inputs, inputs * self.full[1] // self.full[0]


def timed_layers(graph: ModelGraph) -> tuple[TimedLayer, ...]:
    """Return the convolutions and linear layers of a network, in order of execution."""
    full = {name: group.size for name, group in graph.groups.items()}
    cuttable = {name for name, group in graph.groups.items() if group.reason is None}

    def free(axis: AxisSize) -> bool:
        return any(group in cuttable for group, _ in axis.shares)

    return tuple(
        TimedLayer(
            op.name,
            op.layer.geometry,
            op.layer.inputs,
            op.layer.outputs,
            (op.layer.inputs.under(full), op.layer.outputs.under(full)),
            (free(op.layer.inputs), free(op.layer.outputs)),
        )
        for op in graph.costs.ops
        if op.layer is not None
    )


def describe(geometry: Geometry) -> str:
    """Return a geometry as the words that a table knows it by.

    Example:
        >>> describe(Geometry("convolution", 1, (40, 20), (3, 3), (1, 1), (1, 1), (1, 1), (0, 0)))
        'convolution 1x40x20, kernel 3x3, padding 1x1'
        >>> describe(Geometry("linear", 7))
        'linear 7'
    """
    words = [f"{geometry.kind} {_times((geometry.images, *geometry.size))}"]
    for field in fields(geometry):
        value = getattr(geometry, field.name)
        if isinstance(value, tuple) and field.name != "size" and value != _USUAL.get(field.name):
            words += [f"{field.name} {_times(value)}"] if value else []
    if geometry.groups != 1:
        words.append(f"groups {geometry.groups}" if geometry.groups else "depthwise")
    return ", ".join(words)


_USUAL = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "output_padding": (0, 0)}


def _times(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))


def _widths(full: int, step: int) -> tuple[int, ...]:
    """Return about five multiples of `step` from an eighth of `full` on, and `full` itself."""
    found = {full, *(max(round(share * full / step), 1) * step for share in _SHARES)}
    return tuple(sorted(width for width in found if width <= full))
