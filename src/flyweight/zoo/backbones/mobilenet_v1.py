"""MobileNetV1 (arXiv 1704.04861) with the layer names of PaddleDetection.

`conv1` is the stem. `conv2_1` ... `conv6` are depthwise-separable pairs of the layers `dw` and
`sep`. Strides and widths are in the table `PAIRS`.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from flyweight.zoo.backbones.blocks import ConvNormActivation, initialise_convolutions, scaled

STEM_CHANNELS = 32
"""Output channels of `conv1`, which has stride 2."""

PAIRS: tuple[tuple[str, int, int], ...] = (
    ("conv2_1", 64, 1),
    ("conv2_2", 128, 2),
    ("conv3_1", 128, 1),
    ("conv3_2", 256, 2),
    ("conv4_1", 256, 1),
    ("conv4_2", 512, 2),
    ("conv5_1", 512, 1),
    ("conv5_2", 512, 1),
    ("conv5_3", 512, 1),
    ("conv5_4", 512, 1),
    ("conv5_5", 512, 1),
    ("conv5_6", 1024, 2),
    ("conv6", 1024, 1),
)
"""Name, output channels and stride of every pair, in order."""

TAPS = ("conv4_1", "conv5_5", "conv6")
"""The last pair at stride 8, 16 and 32: the inputs of a detector head."""


class DepthwiseSeparable(nn.Module):
    """A depthwise 3x3 convolution (`dw`), then a 1x1 convolution across channels (`sep`).

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Stride of `dw`.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.dw = ConvNormActivation(in_channels, in_channels, 3, stride=stride, groups=in_channels)
        self.sep = ConvNormActivation(in_channels, out_channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the map after `dw` and `sep`."""
        mixed: Tensor = self.sep(self.dw(images))
        return mixed


class MobileNetV1(nn.Module):
    """The convolutional part of MobileNetV1, which returns the maps at `taps`.

    Args:
        width: Multiplies every layer's channels, see `blocks.scaled`.
        taps: Names of the pairs whose outputs are returned, in the order of the network.

    Attributes:
        channels: Channels of every returned map.
    """

    def __init__(self, *, width: float = 1.0, taps: Sequence[str] = TAPS) -> None:
        super().__init__()
        self.taps = tuple(taps)
        in_channels = scaled(STEM_CHANNELS, width)
        self.conv1 = ConvNormActivation(3, in_channels, 3, stride=2)
        channels: dict[str, int] = {}
        for name, base_channels, stride in PAIRS:
            channels[name] = scaled(base_channels, width)
            self.add_module(name, DepthwiseSeparable(in_channels, channels[name], stride))
            in_channels = channels[name]
        self.channels = tuple(channels[name] for name in self.taps)
        initialise_convolutions(self)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the maps at the taps.

        Args:
            images: `(n, 3, h, w)`; h and w divide by 32.

        Returns:
            By default `(n, 256, h/8, w/8)`, `(n, 512, h/16, w/16)`, `(n, 1024, h/32, w/32)`.
        """
        current: Tensor = self.conv1(images)
        maps = []
        for name, _, _ in PAIRS:
            current = self.get_submodule(name)(current)
            if name in self.taps:
                maps.append(current)
        return tuple(maps)
