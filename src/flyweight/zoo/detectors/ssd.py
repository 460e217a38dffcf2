"""SSD (arXiv 1512.02325) with separable heads on MobileNetV3, as PaddleDetection built SSDLite.

The network returns raw maps. Priors, decoding and suppression are in `tasks`, so that exactly the
part with weights is traced, priced and pruned.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from flyweight.zoo.backbones.blocks import ConvNormActivation, initialise_convolutions, scaled
from flyweight.zoo.backbones.mobilenet_v3 import MobileNetV3, Size

HEAD_STD = 0.03
"""Standard deviation of the initial weights of a head, as in SSDLite of torchvision."""

OLD_NAMES = (
    (r"(?P<path>loc|conf)\.(?P<layer>\d)\.dw\.conv\.weight", "{path}_{layer}dw_weights"),
    (r"(?P<path>loc|conf)\.(?P<layer>\d)\.pw\.weight", "{path}_{layer}pw_weights"),
    (
        r"(?P<path>loc|conf)\.(?P<layer>\d)\.dw\.bn\.(?P<statistic>\w+)",
        "{path}_{layer}_bn_{statistic}",
    ),
)
"""Rules for the names of the head's parameters in PaddleDetection, see `old_names`."""


@dataclass(frozen=True)
class SsdLevel:
    """The priors of one map: the same shapes around the centre of every cell.

    Attributes:
        shapes: Width and height of every prior of a cell, in input pixels.
        step: Input pixels per cell.
    """

    shapes: tuple[tuple[float, float], ...]
    step: int


@dataclass(frozen=True)
class SsdGeometry:
    """Priors of an SSD head.

    Attributes:
        levels: One level per pair of output maps, finest first. The step of the first level is its
            exact stride, from which the size of the input is computed.
        base_size: Side of the square input that steps and shapes refer to. At another size, shapes
            are scaled and cells divide the input evenly. None: shapes are pixels at every size.
        clip: Whether priors are clipped to the input.
        variances: Divisors of the learned offsets: of the centre, and of the size.
    """

    levels: tuple[SsdLevel, ...]
    base_size: int | None = None
    clip: bool = False
    variances: tuple[float, float] = (0.1, 0.2)


def prior_shapes(
    min_size: float, max_size: float, ratios: Sequence[float]
) -> tuple[tuple[float, float], ...]:
    """Return the shapes of one cell in the order of `prior_box` of Paddle.

    First the square of `min_size`, then for every ratio the wide and the high prior of the same
    area, then the square between `min_size` and `max_size`.

    Example:
        >>> [(round(w), round(h)) for w, h in prior_shapes(32, 64, (4.0,))]
        [(32, 32), (64, 16), (16, 64), (45, 45)]
    """
    shapes = [(min_size, min_size)]
    for ratio in ratios:
        long, short = min_size * math.sqrt(ratio), min_size / math.sqrt(ratio)
        shapes += [(long, short), (short, long)]
    between = math.sqrt(min_size * max_size)
    return (*shapes, (between, between))


def _ssdlite_geometry() -> SsdGeometry:
    base_size, low, high = 320, 20, 95  # sizes from 20 % of the side, and 10 % for the finest map
    steps = (16, 32, 64, 107, 160, 320)
    stride = (high - low) // (len(steps) - 2)
    percent = [10, *range(low, high + 1, stride)]
    sizes = pairwise([base_size * share / 100 for share in (*percent, percent[-1] + stride)])
    ratios: list[tuple[float, ...]] = [(2.0,)] + [(2.0, 3.0)] * (len(steps) - 1)
    levels = (
        SsdLevel(prior_shapes(*size, each), step)
        for size, each, step in zip(sizes, ratios, steps, strict=True)
    )
    return SsdGeometry(tuple(levels), base_size=base_size, clip=True)


SSDLITE_GEOMETRY = _ssdlite_geometry()
"""2434 priors at 320 x 320."""

TAPS: dict[Size, tuple[str, str]] = {
    "large": ("conv14.expand", "conv16"),
    "small": ("conv10.expand", "conv12"),
}
"""The widest map at stride 16, and the last one at stride 32."""

EXTRA = (256, 128, 128, 64)
"""Middle channels of the blocks after the backbone, each of which halves the map.

Their outputs have twice as many channels.
"""


class _SamePadded(ConvNormActivation):
    """A layer with the "same" padding of TensorFlow: the larger margin is below and right.

    Symmetric padding gives maps of the same sizes but samples other pixels at even sizes.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, groups: int) -> None:
        super().__init__(
            in_channels, out_channels, 3, stride=stride, groups=groups, activation=nn.ReLU6()
        )
        self.conv.padding = (0, 0)
        self.stride = stride

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        top, bottom = self._margins(height)
        left, right = self._margins(width)
        return super().forward(functional.pad(images, (left, right, top, bottom)))

    def _margins(self, side: int) -> tuple[int, int]:
        cells = -(-side // self.stride)
        margin = max((cells - 1) * self.stride + 3 - side, 0)
        return margin // 2, margin - margin // 2


def _extra_block(in_channels: int, middle: int) -> nn.Sequential:
    out_channels = 2 * middle
    layers = {
        "extra1": ConvNormActivation(in_channels, middle, 1, activation=nn.ReLU6()),
        # Each input channel makes two output channels; the original also calls it depthwise.
        "extra2_dw": _SamePadded(middle, out_channels, stride=2, groups=middle),
        "extra2_sep": ConvNormActivation(out_channels, out_channels, 1, activation=nn.ReLU6()),
    }
    return nn.Sequential(OrderedDict(layers))


class SsdLiteBackbone(MobileNetV3):
    """MobileNetV3, a 1x1 layer as wide as its last expansion, and four blocks that halve the map.

    Args:
        size: Large or small MobileNetV3.
        width: Multiplies every layer's channels, see `blocks.scaled`.
        multiplier: See `MobileNetV3`.

    Attributes:
        channels: Channels of the six maps, at stride 16, 32, 64, 128, ...
    """

    def __init__(self, size: Size, *, width: float = 1.0, multiplier: float = 0.5) -> None:
        super().__init__(size, width=width, multiplier=multiplier, taps=TAPS[size])
        finest, in_channels = self.channels
        number = len(self.names) + 2
        out_channels = self.get_parameter(f"{self.names[-1]}.expand.conv.weight").shape[0]
        layers: dict[str, nn.Module] = {
            f"conv{number}": ConvNormActivation(
                in_channels, out_channels, 1, activation=nn.Hardswish()
            )
        }
        channels = [finest, out_channels]
        for place, base_channels in enumerate(EXTRA, start=number + 1):
            middle = scaled(base_channels, width)
            layers[f"conv{place}"] = _extra_block(channels[-1], middle)
            channels.append(2 * middle)
        self.extra = tuple(layers)
        for name, layer in layers.items():
            initialise_convolutions(layer)
            self.add_module(name, layer)
        self.channels = tuple(channels)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return six maps, `(n, channels, h / 16, w / 16)` and so on, rounded up."""
        finest, current = super().forward(images)
        maps = [finest]
        for name in self.extra:
            current = self.get_submodule(name)(current)
            maps.append(current)
        return tuple(maps)


HeadBuilder = Callable[[int, int], nn.Module]
"""Function that returns the head of one map, from its input channels and output channels."""


def separable_predictor(in_channels: int, out_channels: int) -> nn.Sequential:
    """Return the predictor of SSDLite: depthwise 3x3 with norm and ReLU6, then 1x1 without bias."""
    return nn.Sequential(
        OrderedDict(
            dw=ConvNormActivation(
                in_channels, in_channels, 3, groups=in_channels, activation=nn.ReLU6()
            ),
            pw=nn.Conv2d(in_channels, out_channels, 1, bias=False),
        )
    )


class SSD(nn.Module):
    """A backbone and, for each of its maps, a predictor of offsets and one of classes.

    Predictors are numbered from 1, as in the original.

    Args:
        backbone: Returns the maps, finest first; its attribute `channels` holds their channels.
        num_classes: Classes without background.
        geometry: Priors of every map.
        predictor: Function that returns a predictor.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        *,
        geometry: SsdGeometry,
        predictor: HeadBuilder = separable_predictor,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.loc, self.conf = nn.ModuleDict(), nn.ModuleDict()
        channels: Sequence[int] = tuple(backbone.channels)  # type: ignore[arg-type]
        for place, (in_channels, level) in enumerate(
            zip(channels, geometry.levels, strict=True), start=1
        ):
            count = len(level.shapes)
            self.loc[str(place)] = predictor(in_channels, 4 * count)
            self.conf[str(place)] = predictor(in_channels, (num_classes + 1) * count)
        for module in (*self.loc.modules(), *self.conf.modules()):
            if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
                nn.init.normal_(module.weight, std=HEAD_STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the raw maps, finest level first: offsets, then classes, of each level.

        Args:
            images: `(n, 3, h, w)`; h and w divide by the stride of the finest level.

        Returns:
            For each level offsets `(n, priors * 4, rows, columns)` and class logits
            `(n, priors * (1 + classes), rows, columns)`, background first. Channels are
            prior-major.
        """
        maps: list[Tensor] = []
        for place, feature in enumerate(self.backbone(images), start=1):
            maps += (self.loc[str(place)](feature), self.conf[str(place)](feature))
        return tuple(maps)
