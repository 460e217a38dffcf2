"""BlazeFace (arXiv 1907.05047) and its smaller variants as PaddleDetection built them.

The original and the two networks found by search (NAS) differ only in a table of widths; Lite has
other blocks. `conv1` is the stem, `blaze_0`, ... are blocks of one pair of layers (`first`), and
`double_blaze_0`, ... blocks of two pairs (`first`, `second`).
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from flyweight.zoo.backbones.blocks import ConvNormActivation, initialise_convolutions
from flyweight.zoo.detectors.ssd import SsdGeometry, SsdLevel

FACE_SIZES = ((16, 24), (32, 48, 64, 80, 96, 128))
"""Sides of the square priors at stride 8 and at stride 16, in pixels."""

FACE_GEOMETRY = SsdGeometry(
    tuple(
        SsdLevel(tuple((float(side), float(side)) for side in sides), step)
        for sides, step in zip(FACE_SIZES, (8, 16), strict=True)
    )
)
"""22,400 priors at 640 x 640. Their sides are the same numbers of pixels at every image size."""

OLD_NAMES = (
    (
        r"backbone\.(?P<layer>\w*blaze_\d)\.first\.(?P<path>\w+)\.conv\.weight",
        "{layer}1_{path}_weights",
    ),
    (
        r"backbone\.(?P<layer>\w*blaze_\d)\.second\.(?P<path>\w+)\.conv\.weight",
        "{layer}2_{path}_weights",
    ),
    (r"backbone\.(?P<layer>\w+)\.shortcut\.conv\.weight", "shortcut{layer}_weights"),
)
"""Rules for the names of convolutions in PaddleDetection, see `old_names`; norms had no names."""


@dataclass(frozen=True)
class Filters:
    """Widths of one network.

    Attributes:
        single: Per single block: input channels, output channels, stride.
        double: Per double block: input channels, middle channels, output channels, stride.
    """

    single: tuple[tuple[int, int, int], ...]
    double: tuple[tuple[int, int, int, int], ...]


ORIGINAL = Filters(
    single=((24, 24, 1), (24, 24, 1), (24, 48, 2), (48, 48, 1), (48, 48, 1)),
    double=(
        (48, 24, 96, 2),
        (96, 24, 96, 1),
        (96, 24, 96, 1),
        (96, 24, 96, 2),
        (96, 24, 96, 1),
        (96, 24, 96, 1),
    ),
)
NAS = Filters(
    single=((12, 12, 1), (12, 12, 2), (12, 12, 1)),
    double=((12, 16, 24, 2), (24, 12, 24, 1), (24, 16, 72, 2), (72, 12, 72, 1)),
)
NAS_V2 = Filters(
    single=((12, 12, 1), (12, 12, 2), (12, 12, 1)),
    double=((12, 16, 32, 2), (32, 32, 32, 1), (32, 16, 72, 2), (72, 24, 72, 1)),
)

LITE: tuple[tuple[int, int, int], ...] = (
    (24, 24, 1),
    (24, 28, 1),
    (28, 32, 2),
    (32, 36, 1),
    (36, 42, 1),
    (42, 48, 2),
    (48, 56, 1),
    (56, 64, 1),
    (64, 72, 1),
    (72, 80, 1),
    (80, 88, 1),
    (88, 96, 2),
    (96, 96, 1),
    (96, 96, 1),
    (96, 96, 1),
    (96, 96, 1),
)
"""Input channels, output channels and stride of the blocks of Lite, `conv2` ... `conv17`."""


class _Shortcut(nn.Module):
    """The shortcut of a block, and the ReLU after the sum.

    Args:
        in_channels: Input channels of the block.
        out_channels: Output channels of the block.
        stride: Stride of the block; with stride 2 the shortcut is pooled.
        project: Give the shortcut a 1x1 layer, which also has an activation.

    Attributes:
        stride: Stride of the block.
        channels: Output channels of the block.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, *, project: bool) -> None:
        super().__init__()
        self.stride = stride
        self.channels = out_channels
        self.shortcut: nn.Module = nn.Identity()
        if project:
            self.shortcut = ConvNormActivation(in_channels, out_channels, 1)

    def add(self, images: Tensor, residual: Tensor) -> Tensor:
        """Return the ReLU of the shortcut of `images` plus `residual`."""
        if self.stride > 1:
            images = functional.max_pool2d(images, self.stride, self.stride, ceil_mode=True)
        return functional.relu(self.shortcut(images) + residual)


class BlazeBlock(_Shortcut):
    """One or two pairs of a wide spatial layer and a 1x1 layer, and the shortcut.

    The spatial layers of the paper are 5x5 and depthwise. In the code of the original, the 5x5
    layer of the second pair is dense, and the released weights belong to that network. With two 3x3
    layers in its place, both pairs are depthwise.

    Args:
        in_channels: Channels of the input.
        channels: Output channels of the first pair.
        out_channels: Output channels of the second pair; None leaves that pair out.
        stride: Stride of the block.
        kernel_size: 5, or 3 for two 3x3 layers in place of each 5x5 layer.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        out_channels: int | None = None,
        *,
        stride: int,
        kernel_size: int,
    ) -> None:
        last = channels if out_channels is None else out_channels
        super().__init__(in_channels, last, stride, project=stride > 1)
        self.first = _pair(in_channels, channels, kernel_size, stride=stride)
        self.second: nn.Module = nn.Identity()
        if out_channels is None:
            self.first.get_submodule("sep").activation = nn.Identity()
        else:
            self.second = _pair(channels, out_channels, kernel_size, dense=kernel_size == 5)

    def forward(self, images: Tensor) -> Tensor:
        """Return the block's output, `(n, channels, h / stride, w / stride)`, rounded up."""
        return self.add(images, self.second(self.first(images)))


def _pair(
    in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, dense: bool = False
) -> nn.Sequential:
    def spatial(step: int) -> ConvNormActivation:
        groups = 1 if dense else in_channels
        return ConvNormActivation(in_channels, in_channels, kernel_size, stride=step, groups=groups)

    layers = {"dw": spatial(stride)}
    if kernel_size == 3:
        layers = {"dw_1": spatial(1), "dw_2": spatial(stride)}
    layers["sep"] = ConvNormActivation(in_channels, out_channels, 1)
    return nn.Sequential(OrderedDict(layers))


class LiteBlock(_Shortcut):
    """A depthwise 3x3 layer, a 1x1 layer, and the shortcut.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Stride of the block.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__(in_channels, out_channels, stride, project=in_channels != out_channels)
        self.dw = ConvNormActivation(in_channels, in_channels, 3, stride=stride, groups=in_channels)
        self.sep = ConvNormActivation(in_channels, out_channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the block's output, `(n, out_channels, h / stride, w / stride)`, rounded up."""
        return self.add(images, self.sep(self.dw(images)))


class BlazeNet(nn.Module):
    """A backbone of blocks, which returns the last map at stride 8 and the last one at 16.

    Args:
        stem_channels: Output channels of `conv1`, which has stride 2.
        stem_kernel_size: Side of its kernel.
        blocks: The blocks by name.

    Attributes:
        channels: Channels of the two maps.
    """

    def __init__(
        self,
        stem_channels: int,
        stem_kernel_size: int,
        blocks: Mapping[str, BlazeBlock | LiteBlock],
    ) -> None:
        super().__init__()
        self.conv1 = ConvNormActivation(3, stem_channels, stem_kernel_size, stride=2)
        self.names = tuple(blocks)
        for name, block in blocks.items():
            self.add_module(name, block)
        halving = max(place for place, block in enumerate(blocks.values()) if block.stride == 2)
        self.tap = self.names[halving - 1]
        self.channels = (blocks[self.tap].channels, blocks[self.names[-1]].channels)
        initialise_convolutions(self)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return two maps, `(n, channels, h / 8, w / 8)` and `(n, channels, h / 16, w / 16)`."""
        current: Tensor = self.conv1(images)
        finer = current
        for name in self.names:
            current = self.get_submodule(name)(current)
            if name == self.tap:
                finer = current
        return finer, current


def blaze_net(filters: Filters, *, kernel_size: int = 5) -> BlazeNet:
    """Return the backbone of BlazeFace with these widths.

    Args:
        filters: For example `ORIGINAL`.
        kernel_size: See `BlazeBlock`.
    """
    blocks = {}
    for place, (before, after, stride) in enumerate(filters.single):
        block = BlazeBlock(before, after, stride=stride, kernel_size=kernel_size)
        blocks[f"blaze_{place}"] = block
    for place, (before, middle, after, stride) in enumerate(filters.double):
        block = BlazeBlock(before, middle, after, stride=stride, kernel_size=kernel_size)
        blocks[f"double_blaze_{place}"] = block
    return BlazeNet(filters.single[0][0], 3, blocks)


def lite_net() -> BlazeNet:
    """Return the backbone of BlazeFace Lite."""
    blocks = {
        f"conv{place}": LiteBlock(before, after, stride=stride)
        for place, (before, after, stride) in enumerate(LITE, start=2)
    }
    return BlazeNet(LITE[0][0], 5, blocks)


def plain_predictor(in_channels: int, out_channels: int) -> nn.Conv2d:
    """Return BlazeFace's predictor: a 3x3 convolution with bias."""
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)
