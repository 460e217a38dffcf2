"""Cost of a network, as it is and with fewer channels, without building the pruned network.

One MAC is one multiply-add. Convolutions (deformable and transposed ones too), linear layers and
matrix products are counted; everything else is listed by name so that nothing is hidden.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Convention = Literal["real", "paddle"]


@dataclass(frozen=True)
class Cost:
    """The cost of one forward pass with the traced input, batch included.

    Attributes:
        macs: Multiply-adds.
        params: Learnable values.
        size_bytes: Parameters and buffers at their own precision, without BatchNorm's step counts.
        values: Learnable values and running statistics: what the originals called parameters.
    """

    macs: int
    params: int
    size_bytes: int
    values: int


@dataclass(frozen=True)
class AxisSize:
    """The size of one axis as a function of how many channels of each group stay.

    Attributes:
        fixed: Positions that belong to no prunable group.
        shares: (group name, positions per channel of that group).
    """

    fixed: int
    shares: tuple[tuple[str, int], ...] = ()

    def under(self, kept: Mapping[str, int]) -> int:
        """Return the size when `kept` channels of each group stay."""
        return self.fixed + sum(each * kept[group] for group, each in self.shares)


@dataclass(frozen=True)
class Geometry:
    """What the latency of a layer depends on besides its widths; sizes as (rows, columns).

    Attributes:
        kind: `convolution`, `transposed` (convolution) or `linear`.
        images: Images of a convolution, or rows that a linear layer is applied to.
        size: Of the input; empty for a linear layer, as are the following.
        kernel: Of the weight.
        stride: Of the window.
        padding: On both sides.
        dilation: Of the kernel.
        output_padding: Of a transposed convolution.
        groups: Of the convolution; 0 where each input channel is one (depthwise).
    """

    kind: Literal["convolution", "transposed", "linear"]
    images: int
    size: tuple[int, ...] = ()
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    output_padding: tuple[int, ...] = ()
    groups: int = 1


@dataclass(frozen=True)
class Layer:
    """A convolution or a linear layer as something to be timed.

    Attributes:
        geometry: Everything but widths.
        inputs: Channels read.
        outputs: Channels made.
    """

    geometry: Geometry
    inputs: AxisSize
    outputs: AxisSize


@dataclass(frozen=True)
class OpCost:
    """The multiply-adds of one operation: a factor times the sizes of some axes.

    Attributes:
        name: The module it runs in.
        op: The operation, for example `conv2d`.
        positions: How often the kernel is applied: output rows, columns and images.
        axes: Axes whose product with `positions` gives the MACs.
        static: The axes that the originals counted when they did not know the image's size.
        paddle: Whether the originals counted this operation at all.
        layer: What it is as a layer to be timed; None for products of another form.
    """

    name: str
    op: str
    positions: int
    axes: tuple[AxisSize, ...]
    paddle: bool
    layer: Layer | None = None

    def macs(self, kept: Mapping[str, int], convention: Convention) -> int:
        """Return the multiply-adds under a plan."""
        if convention == "paddle" and not self.paddle:
            return 0
        product = self.positions if convention == "real" else 1
        for axis in self.axes:
            product *= axis.under(kept)
        return product


@dataclass(frozen=True)
class TensorCost:
    """The values of one parameter or buffer."""

    name: str
    axes: tuple[AxisSize, ...]
    itemsize: int
    learnable: bool
    floating: bool

    def numel(self, kept: Mapping[str, int]) -> int:
        """Return how many values stay under a plan."""
        product = 1
        for axis in self.axes:
            product *= axis.under(kept)
        return product


@dataclass(frozen=True)
class CostModel:
    """Prices any plan for one graph.

    Attributes:
        ops: What is counted.
        tensors: Parameters and buffers.
        uncounted: Operation name to how often it occurs, for operations without MACs here.
    """

    ops: tuple[OpCost, ...]
    tensors: tuple[TensorCost, ...]
    uncounted: Mapping[str, int]

    def price(self, kept: Mapping[str, int], convention: Convention = "real") -> Cost:
        """Return the cost when `kept` channels of every prunable group stay.

        Args:
            kept: Channels that stay, for every group of the graph.
            convention: `real` uses true shapes and counts every product. `paddle` is how the
                originals printed percentages when their evaluation graph did not know the
                image's size: every output is counted as 1x1 and deformable convolutions as
                nothing (reference: PaddleSlim 1.x `analysis.flops`).
        """
        macs = sum(op.macs(kept, convention) for op in self.ops)
        numels = [(tensor, tensor.numel(kept)) for tensor in self.tensors]
        return Cost(
            macs=macs,
            params=sum(count for tensor, count in numels if tensor.learnable),
            size_bytes=sum(count * tensor.itemsize for tensor, count in numels),
            values=sum(count for tensor, count in numels if tensor.floating),
        )
