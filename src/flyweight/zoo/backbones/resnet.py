"""ResNet (arXiv 1512.03385) as PaddleDetection built it, with its layer names.

`stem` holds `conv1` (`conv1_1` ... `conv1_3` in variant d). `res2a`, `res2b`, ... are the blocks of
stage 2, and so on. The layers of a block are `branch2a`, `branch2b`, `branch2c` and, if the
shortcut has weights, `branch1`. Stage n has the stride 2 ** n, for n from 2 to 5.
"""

import re
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from flyweight.zoo import library_parts
from flyweight.zoo.backbones.blocks import ConvNormActivation, initialise_convolutions, scaled

STEM_CHANNELS = 64
STAGE_CHANNELS = {2: 64, 3: 128, 4: 256, 5: 512}
"""Stage -> channels of its 3x3 layers."""

DEPTHS = {34: {2: 3, 3: 4, 4: 6, 5: 3}, 50: {2: 3, 3: 4, 4: 6, 5: 3}}
"""Depth -> stage -> number of blocks."""

EXPANSION = 4
"""Output channels of a bottleneck per channel of its 3x3 layer."""

OLD_NAMES = (
    (r"backbone\.stem\.conv1\.conv\.weight", "conv1_weights"),
    (r"backbone\.stem\.conv1\.bn\.(?P<statistic>\w+)", "bn_conv1_{statistic}"),
    (r"backbone\.stem\.(?P<layer>conv1_\d)\.conv\.weight", "{layer}_weights"),
    # The original removed the first three characters of a layer's name to name its norm.
    (r"backbone\.stem\.con(?P<layer>v1_\d)\.bn\.(?P<statistic>\w+)", "bn{layer}_{statistic}"),
    (r"backbone\.(?P<layer>res.+)\.conv\.weight", "{layer}_weights"),
    (r"backbone\.res(?P<layer>.+)\.bn\.(?P<statistic>\w+)", "bn{layer}_{statistic}"),
    (r"backbone\.(?P<layer>res.+)\.offset\.weight", "{layer}_conv_offset.w_0"),
    (r"backbone\.(?P<layer>res.+)\.offset\.bias", "{layer}_conv_offset.b_0"),
)
"""Rules for the names of the parameters in PaddleDetection, see `old_names`."""

Depth = Literal[34, 50]
Variant = Literal["a", "b", "d"]
"""Place of the stride 2 in a bottleneck.

a: in its first 1x1 layer, as in the paper; b: in the 3x3 layer; d: as b, with a stem of three 3x3
layers and with average pooling before the 1x1 layer of the shortcut (arXiv 1812.01187, section 4).
"""


class DeformableConvNormActivation(nn.Module):
    """Modulated deformable 3x3 convolution (arXiv 1811.11168), batch norm, ReLU.

    `offset` is a convolution of the same input. For each of the nine samples of the kernel it
    returns an offset (18 channels, rows before columns) and a weight (9 channels, through a
    sigmoid). It is initialised with zeros: samples are on the grid and have the weight one half.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Step of the kernel.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.offset = nn.Conv2d(in_channels, 27, 3, stride=stride, padding=1)
        self.conv = library_parts.DeformConv2d(
            in_channels, out_channels, 3, stride=stride, padding=1, bias=False
        )
        self.bn = nn.BatchNorm2d(out_channels)
        self.activation = nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        """Return the activated map, `(n, out_channels, h / stride, w / stride)`."""
        offsets, logits = self.offset(images).split((18, 9), dim=1)
        activated: Tensor = self.activation(self.bn(self.conv(images, offsets, logits.sigmoid())))
        return activated


class _Residual(nn.Module):
    """Base of both kinds of block: the shortcut, the sum, and the ReLU after it.

    Attributes:
        out_channels: Channels of the output.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int, variant: Variant, project: bool
    ) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.pool: nn.Module | None = None
        self.branch1: nn.Module | None = None
        if in_channels == out_channels and stride == 1 and not project:
            return
        if variant == "d" and stride == 2:
            self.pool, stride = nn.AvgPool2d(2, 2, ceil_mode=True), 1
        self.branch1 = _linear(in_channels, out_channels, 1, stride=stride)

    def add(self, images: Tensor, residual: Tensor) -> Tensor:
        """Return the ReLU of the shortcut of `images` plus `residual`."""
        shortcut = images if self.pool is None else self.pool(images)
        shortcut = shortcut if self.branch1 is None else self.branch1(shortcut)
        return functional.relu(shortcut + residual)


class BasicBlock(_Residual):
    """Two 3x3 layers and the shortcut, for ResNet-34.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        stride: Stride of the first layer.
        variant: See `Variant`.
        project: Give the shortcut a 1x1 layer even if the shapes are equal.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        stride: int,
        variant: Variant,
        project: bool = False,
    ) -> None:
        super().__init__(in_channels, channels, stride=stride, variant=variant, project=project)
        self.branch2a = ConvNormActivation(in_channels, channels, 3, stride=stride)
        self.branch2b = _linear(channels, channels, 3)

    def forward(self, images: Tensor) -> Tensor:
        """Return the block's output, `(n, channels, h / stride, w / stride)`."""
        return self.add(images, self.branch2b(self.branch2a(images)))


class Bottleneck(_Residual):
    """1x1, 3x3 and 1x1 layers and the shortcut, for ResNet-50.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the 3x3 layer; the output has `EXPANSION` times as many.
        stride: Stride of the block.
        variant: Layer with the stride, see `Variant`.
        deformable: Make the 3x3 layer deformable.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        stride: int,
        variant: Variant,
        deformable: bool = False,
    ) -> None:
        out_channels = EXPANSION * channels
        super().__init__(in_channels, out_channels, stride=stride, variant=variant, project=False)
        first, second = (stride, 1) if variant == "a" else (1, stride)
        self.branch2a = ConvNormActivation(in_channels, channels, 1, stride=first)
        self.branch2b: nn.Module
        if deformable:
            self.branch2b = DeformableConvNormActivation(channels, channels, stride=second)
        else:
            self.branch2b = ConvNormActivation(channels, channels, 3, stride=second)
        self.branch2c = _linear(channels, out_channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the block's output, `(n, 4 * channels, h / stride, w / stride)`."""
        return self.add(images, self.branch2c(self.branch2b(self.branch2a(images))))


def make_stage(
    number: int,
    in_channels: int,
    *,
    depth: Depth,
    variant: Variant,
    width: float = 1.0,
    deformable: bool = False,
) -> OrderedDict[str, BasicBlock | Bottleneck]:
    """Return the blocks of one stage by name, ready for `nn.Sequential`.

    Args:
        number: 2 to 5. All stages but stage 2 halve the map.
        in_channels: Channels of the input.
        depth: A key of `DEPTHS`.
        variant: See `Variant`.
        width: Multiplies the channels, see `blocks.scaled`.
        deformable: Make every 3x3 layer of the stage deformable (bottlenecks only).

    Example:
        >>> stage = make_stage(5, 1024, depth=50, variant="b")
        >>> list(stage), stage["res5c"].out_channels
        (['res5a', 'res5b', 'res5c'], 2048)
    """
    blocks: OrderedDict[str, BasicBlock | Bottleneck] = OrderedDict()
    channels = scaled(STAGE_CHANNELS[number], width)
    for place in range(DEPTHS[depth][number]):
        stride = 2 if place == 0 and number > 2 else 1
        block: BasicBlock | Bottleneck
        if depth < 50:
            # The original has a projection here, although input and output have 64 channels.
            project = number == 2 and place == 0
            block = BasicBlock(
                in_channels, channels, stride=stride, variant=variant, project=project
            )
        else:
            block = Bottleneck(
                in_channels, channels, stride=stride, variant=variant, deformable=deformable
            )
        blocks[f"res{number}{'abcdef'[place]}"] = block
        in_channels = block.out_channels
    return blocks


class ResNet(nn.Module):
    """The convolutional part of ResNet, which returns the maps after the stages in `taps`.

    The network ends at the last of these stages; later stages are not built.

    Args:
        depth: A key of `DEPTHS`.
        variant: See `Variant`.
        width: Multiplies every layer's channels, see `blocks.scaled`.
        taps: Stages whose outputs are returned, ascending.
        deformable: Stages whose 3x3 layers are deformable (bottlenecks only).

    Attributes:
        channels: Channels of every returned map.
    """

    def __init__(
        self,
        depth: Depth = 50,
        variant: Variant = "b",
        *,
        width: float = 1.0,
        taps: Sequence[int] = (3, 4, 5),
        deformable: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.taps = tuple(taps)
        self.stem = _stem(variant, width)
        self.stages: dict[int, tuple[str, ...]] = {}
        channels = {1: scaled(STEM_CHANNELS, width)}
        for number in range(2, self.taps[-1] + 1):
            blocks = make_stage(
                number,
                channels[number - 1],
                depth=depth,
                variant=variant,
                width=width,
                deformable=number in deformable,
            )
            for name, block in blocks.items():
                self.add_module(name, block)
            self.stages[number] = tuple(blocks)
            channels[number] = next(reversed(blocks.values())).out_channels
        self.channels = tuple(channels[number] for number in self.taps)
        initialise(self)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the maps after the stages of `taps`.

        Args:
            images: `(n, 3, h, w)`; h and w divide by the last stride.

        Returns:
            For stage s `(n, channels, h / 2**s, w / 2**s)`.
        """
        current: Tensor = functional.max_pool2d(self.stem(images), 3, 2, 1)
        maps = []
        for number, names in self.stages.items():
            for name in names:
                current = self.get_submodule(name)(current)
            if number in self.taps:
                maps.append(current)
        return tuple(maps)


def library_names(names: Iterable[str]) -> dict[str, str]:
    """Return `{name in torchvision or timm: name here}` for the parameters of a ResNet.

    Example:
        >>> library_names(["bn1.bias", "layer1.0.conv3.weight", "fc.weight"])
        {'bn1.bias': 'stem.conv1.bn.bias', 'layer1.0.conv3.weight': 'res2a.branch2c.conv.weight'}
    """
    given = list(names)
    # The variants of timm with three layers in the stem also pool before the projection.
    deep = "conv1.0.weight" in given
    projection = {"1": "conv", "2": "bn"} if deep else {"0": "conv", "1": "bn"}
    stem = {"conv1": "stem.conv1.conv", "bn1": "stem.conv1.bn"}
    if deep:
        stem = {f"conv1.{3 * i}": f"stem.conv1_{i + 1}.conv" for i in range(3)}
        stem |= {"conv1.1": "stem.conv1_1.bn", "conv1.4": "stem.conv1_2.bn"}
        stem |= {"bn1": "stem.conv1_3.bn"}
    found = {}
    for name in given:
        layer, _, leaf = name.rpartition(".")
        block = re.fullmatch(r"layer(\d)\.(\d)\.(conv|bn|downsample\.)(\d)", layer)
        if layer in stem:
            found[name] = f"{stem[layer]}.{leaf}"
        elif block is not None:
            place = f"res{int(block[1]) + 1}{'abcdef'[int(block[2])]}"
            if block[3] != "downsample.":
                found[name] = f"{place}.branch2{' abc'[int(block[4])]}.{block[3]}.{leaf}"
            elif block[4] in projection:
                found[name] = f"{place}.branch1.{projection[block[4]]}.{leaf}"
    return found


def initialise(model: nn.Module) -> None:
    """Initialise every convolution as `initialise_convolutions` does, deformable ones included.

    The convolutions that return the offsets of a deformable layer are initialised with zeros.
    """
    initialise_convolutions(model)
    for module in model.modules():
        if isinstance(module, DeformableConvNormActivation) and not module.conv.weight.is_meta:
            nn.init.kaiming_normal_(module.conv.weight, nonlinearity="relu")
            nn.init.zeros_(module.offset.weight)


def _stem(variant: Variant, width: float) -> nn.Sequential:
    channels, half = scaled(STEM_CHANNELS, width), scaled(STEM_CHANNELS // 2, width)
    layers: dict[str, nn.Module] = {"conv1": ConvNormActivation(3, channels, 7, stride=2)}
    if variant == "d":
        layers = {
            "conv1_1": ConvNormActivation(3, half, 3, stride=2),
            "conv1_2": ConvNormActivation(half, half, 3),
            "conv1_3": ConvNormActivation(half, channels, 3),
        }
    return nn.Sequential(OrderedDict(layers))


def _linear(
    in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1
) -> ConvNormActivation:
    return ConvNormActivation(
        in_channels, out_channels, kernel_size, stride=stride, activation=nn.Identity()
    )
