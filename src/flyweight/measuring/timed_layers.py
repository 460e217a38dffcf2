"""Layers of a network that are timed, and the widths at which each is timed."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import lcm

from flyweight.graph.cost import AxisSize, Geometry
from flyweight.graph.model_graph import ModelGraph

Widths = tuple[int, int]
"""Input channels and output channels of a layer."""
_SHARES = (0.125, 0.25, 0.5, 0.75)


@dataclass(frozen=True)
class TimedLayer:
    """One layer of a network.

    Attributes:
        name: The module that it runs in.
        geometry: Everything but the widths.
        inputs: Input channels as a function of the channels that each group keeps.
        outputs: Output channels, likewise.
        full: Input and output channels in the dense network.
        free: Whether pruning can reduce each of the two.
    """

    name: str
    geometry: Geometry
    inputs: AxisSize
    outputs: AxisSize
    full: Widths
    free: tuple[bool, bool]

    def axes(self, step: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the widths to time, of inputs and of outputs, in ascending order.

        Args:
            step: The channel step; multiples of it are fast.
        """
        if self.geometry.groups > 1:
            step = lcm(step, self.geometry.groups)
        in_channels, out_channels = (
            _widths(full, step) if free else (full,)
            for full, free in zip(self.full, self.free, strict=True)
        )
        return in_channels, out_channels

    def points(self, step: int) -> tuple[Widths, ...]:
        """Return every pair of widths to time; those of a depthwise layer depend on each other."""
        in_channels, out_channels = self.axes(step)
        if self.depthwise:
            return tuple(self.tied(each) for each in in_channels)
        return tuple((one, other) for one in in_channels for other in out_channels)

    @property
    def depthwise(self) -> bool:
        """Whether every input channel is a group of its own (`groups` is 0 then)."""
        return self.geometry.groups == 0

    def tied(self, inputs: int) -> Widths:
        """Return the widths of a depthwise layer with this number of input channels."""
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


def geometry_key(geometry: Geometry) -> str:
    """Return the text that identifies a geometry in a latency table.

    Example:
        >>> geometry_key(
        ...     Geometry("convolution", 1, (40, 20), (3, 3), (1, 1), (1, 1), (1, 1), (0, 0))
        ... )
        'convolution 1x40x20, kernel 3x3, padding 1x1'
        >>> geometry_key(Geometry("linear", 7))
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


def weight_shape(geometry: Geometry, widths: Widths) -> tuple[int, ...]:
    """Return the shape of a layer's weight in PyTorch's order, which is also that of ONNX."""
    in_channels, out_channels = widths
    groups = geometry.groups or in_channels
    if geometry.kind == "transposed":
        return (in_channels, out_channels // groups, *geometry.kernel)
    return (out_channels, in_channels // groups, *geometry.kernel)


_USUAL = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "output_padding": (0, 0)}


def _times(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))


def _widths(full: int, step: int) -> tuple[int, ...]:
    """Return about four multiples of `step` from an eighth of `full` upwards, and `full`."""
    found = {full, *(max(round(share * full / step), 1) * step for share in _SHARES)}
    return tuple(sorted(width for width in found if width <= full))
