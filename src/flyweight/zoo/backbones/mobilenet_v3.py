"""MobileNetV3 (arXiv 1905.02244) as PaddleDetection built it, with its layer names.

The network differs from those of torchvision and timm: the first block has an expansion of 16 to 16
channels, squeeze-and-excitation has exactly a quarter of the channels of the expansion (18 for 72),
and its hard sigmoid has the slope 0.2 instead of 1/6. So their weights do not fit.

`conv1` is the stem. `conv2` and the following are inverted residuals with the layers `expand`,
`depthwise`, `linear` and, if the row has `squeeze`, `se_1` and `se_2`.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from flyweight.zoo.backbones.blocks import ConvNormActivation, initialise_convolutions, scaled

STEM_CHANNELS = 16
"""Output channels of `conv1`, which has stride 2."""

SQUEEZE = 4
"""Ratio of the channels of the expansion to those of the squeeze, which are rounded down."""

EXPAND = ".expand"
"""Ending of a tap name: the output of the expansion, before the depthwise layer of the block."""

Size = Literal["large", "small"]


@dataclass(frozen=True)
class Block:
    """One row of tables 1 and 2 of the paper.

    Attributes:
        kernel_size: Side of the depthwise kernel.
        expanded: Channels between the expansion and the projection.
        out_channels: Channels of the output.
        squeeze: Whether the block has squeeze-and-excitation.
        hard_swish: Whether the activation is hard swish; otherwise it is ReLU.
        stride: Stride of the depthwise layer.
    """

    kernel_size: int
    expanded: int
    out_channels: int
    squeeze: bool
    hard_swish: bool
    stride: int


LARGE: tuple[Block, ...] = (
    Block(3, 16, 16, False, False, 1),
    Block(3, 64, 24, False, False, 2),
    Block(3, 72, 24, False, False, 1),
    Block(5, 72, 40, True, False, 2),
    Block(5, 120, 40, True, False, 1),
    Block(5, 120, 40, True, False, 1),
    Block(3, 240, 80, False, True, 2),
    Block(3, 200, 80, False, True, 1),
    Block(3, 184, 80, False, True, 1),
    Block(3, 184, 80, False, True, 1),
    Block(3, 480, 112, True, True, 1),
    Block(3, 672, 112, True, True, 1),
    Block(5, 672, 160, True, True, 2),
    Block(5, 960, 160, True, True, 1),
    Block(5, 960, 160, True, True, 1),
)
"""`conv2` ... `conv16`."""

SMALL: tuple[Block, ...] = (
    Block(3, 16, 16, True, False, 2),
    Block(3, 72, 24, False, False, 2),
    Block(3, 88, 24, False, False, 1),
    Block(5, 96, 40, True, True, 2),
    Block(5, 240, 40, True, True, 1),
    Block(5, 240, 40, True, True, 1),
    Block(5, 120, 48, True, True, 1),
    Block(5, 144, 48, True, True, 1),
    Block(5, 288, 96, True, True, 2),
    Block(5, 576, 96, True, True, 1),
    Block(5, 576, 96, True, True, 1),
)
"""`conv2` ... `conv12`."""

TABLES: dict[Size, tuple[Block, ...]] = {"large": LARGE, "small": SMALL}

YOLO_TAPS = ("conv7", "conv13", "conv16")
"""Taps of the large network: the last block at stride 8, 16 and 32."""

FPN_TAPS = ("conv5.expand", "conv8.expand", "conv14.expand")
"""Taps of the large network: the widest maps at stride 4, 8 and 16, inside the blocks of stride 2.

The original pyramid network reads these. `conv15` and `conv16` follow the last tap and are not
built here; the original built them but did not use them.
"""


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, squeeze-and-excitation, projection, and the shortcut.

    Args:
        in_channels: Channels of the input.
        block: The row of the table, scaled.
    """

    def __init__(self, in_channels: int, block: Block) -> None:
        super().__init__()
        self.expand = _expansion(in_channels, block)
        self.depthwise = ConvNormActivation(
            block.expanded,
            block.expanded,
            block.kernel_size,
            stride=block.stride,
            groups=block.expanded,
            activation=_activation(block),
        )
        self.squeeze = block.squeeze
        if block.squeeze:
            self.se_1 = nn.Conv2d(block.expanded, block.expanded // SQUEEZE, 1)
            self.se_2 = nn.Conv2d(block.expanded // SQUEEZE, block.expanded, 1)
        self.linear = ConvNormActivation(
            block.expanded, block.out_channels, 1, activation=nn.Identity()
        )
        self.shortcut = block.stride == 1 and in_channels == block.out_channels

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the expansion's output, at the size of `images`, and the block's output."""
        expanded: Tensor = self.expand(images)
        current: Tensor = self.depthwise(expanded)
        if self.squeeze:
            pooled = functional.adaptive_avg_pool2d(current, 1)
            current = current * _hard_sigmoid(self.se_2(functional.relu(self.se_1(pooled))))
        projected: Tensor = self.linear(current)
        return expanded, images + projected if self.shortcut else projected


class MobileNetV3(nn.Module):
    """The convolutional part of MobileNetV3, which returns the maps at `taps`.

    The network ends at the last tap; the layers after it are not built.

    Args:
        size: One of the two networks of the paper.
        width: Multiplies every layer's channels, see `blocks.scaled`.
        multiplier: Multiplies the output of the last three blocks and the expansion of the last
            two, as the original detectors for mobile phones do with 0.5.
        taps: Names of the maps to return, in the order of the network: `conv7` is the output of
            that block, `conv14.expand` the output of its expansion. For example `YOLO_TAPS` and
            `FPN_TAPS`.

    Attributes:
        channels: Channels of every returned map.
    """

    def __init__(
        self,
        size: Size = "large",
        *,
        width: float = 1.0,
        multiplier: float = 1.0,
        taps: Sequence[str] = YOLO_TAPS,
    ) -> None:
        super().__init__()
        self.taps = tuple(taps)
        in_channels = scaled(STEM_CHANNELS, width)
        self.conv1 = ConvNormActivation(3, in_channels, 3, stride=2, activation=nn.Hardswish())
        self.names: list[str] = []
        channels: dict[str, int] = {}
        for name, block in _rows(size, width, multiplier).items():
            channels |= {name + EXPAND: block.expanded, name: block.out_channels}
            self.names.append(name)
            if self.taps[-1] == name + EXPAND:
                expansion = _expansion(in_channels, block)
                self.add_module(name, nn.Sequential(OrderedDict(expand=expansion)))
                break
            self.add_module(name, InvertedResidual(in_channels, block))
            in_channels = block.out_channels
            if self.taps[-1] == name:
                break
        self.channels = tuple(channels[name] for name in self.taps)
        initialise_convolutions(self)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the maps at the taps.

        Args:
            images: `(n, 3, h, w)`; h and w divide by 32.

        Returns:
            By default `(n, 40, h/8, w/8)`, `(n, 112, h/16, w/16)`, `(n, 160, h/32, w/32)`.
        """
        current: Tensor = self.conv1(images)
        maps = []
        for name in self.names:
            block = self.get_submodule(name)
            if not isinstance(block, InvertedResidual):
                maps.append(block(current))
                break
            expanded, current = block(current)
            if name + EXPAND in self.taps:
                maps.append(expanded)
            if name in self.taps:
                maps.append(current)
        return tuple(maps)


def _rows(size: Size, width: float, multiplier: float) -> dict[str, Block]:
    """Return the blocks of a network by name, with the channels they are built with."""
    table = list(TABLES[size])
    for place in (-3, -2, -1):
        block = table[place]
        table[place] = replace(
            block,
            out_channels=int(block.out_channels * multiplier),
            expanded=int(block.expanded * (multiplier if place > -3 else 1)),
        )
    return {
        f"conv{place}": replace(
            block,
            expanded=scaled(block.expanded, width),
            out_channels=scaled(block.out_channels, width),
        )
        for place, block in enumerate(table, start=2)
    }


def _expansion(in_channels: int, block: Block) -> ConvNormActivation:
    return ConvNormActivation(in_channels, block.expanded, 1, activation=_activation(block))


def _activation(block: Block) -> nn.Module:
    return nn.Hardswish() if block.hard_swish else nn.ReLU()


def _hard_sigmoid(logits: Tensor) -> Tensor:
    """Return the hard sigmoid of Paddle, with slope 0.2; that of PyTorch has the slope 1/6."""
    return (0.2 * logits + 0.5).clamp(0, 1)
