"""YOLOv3 (arXiv 1804.02767) with the layer names of PaddleDetection.

The network returns raw maps. Decoding and suppression are in `tasks`, so that exactly the part with
weights is traced, priced and pruned.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from flyweight.zoo.backbones.blocks import ConvNormActivation, initialise_convolutions, scaled

LEAKY_SLOPE = 0.1

OLD_NAMES = (
    (r"(?P<path>yolo_.+\.conv)\.weight", "{path}.weights"),
    (r"(?P<path>yolo_.+\.conv\.bias)", "{path}"),
    (r"(?P<path>yolo_.+\.bn)\.running_var", "{path}.var"),
    (r"(?P<path>yolo_.+\.bn)\.(?P<statistic>\w+)", "{path}.{statistic}"),
)
"""Rules for the names of the head's parameters in PaddleDetection, see `old_names`."""

OBJECTNESS_PRIOR = 0.01
"""Predicted probability of an object at every anchor before training.

Thousands of anchors per image contain no object. With the probability one half, which a zero bias
gives, their loss dominates for the first hundreds of steps (arXiv 1708.02002, section 3.3).
"""


@dataclass(frozen=True)
class YoloGeometry:
    """Anchors of a YOLO head.

    Attributes:
        anchors: Width and height of every anchor, in pixels of the network's input.
        masks: Indices of the anchors of every output map.
        strides: Input pixels per cell of every output map.
    """

    anchors: tuple[tuple[int, int], ...]
    masks: tuple[tuple[int, ...], ...]
    strides: tuple[int, ...]

    def anchors_of(self, scale: int) -> tuple[tuple[int, int], ...]:
        """Return the anchors of the output map with index `scale`."""
        return tuple(self.anchors[index] for index in self.masks[scale])


COCO_GEOMETRY = YoloGeometry(
    anchors=(
        (10, 13),
        (16, 30),
        (33, 23),
        (30, 61),
        (62, 45),
        (59, 119),
        (116, 90),
        (156, 198),
        (373, 326),
    ),
    masks=((6, 7, 8), (3, 4, 5), (0, 1, 2)),
    strides=(32, 16, 8),
)
"""Anchors of the paper, from k-means over COCO."""


def _layer(in_channels: int, out_channels: int, kernel_size: int) -> ConvNormActivation:
    activation = nn.LeakyReLU(LEAKY_SLOPE)
    return ConvNormActivation(in_channels, out_channels, kernel_size, activation=activation)


def _layer_pair(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(_layer(in_channels, channels, 1), _layer(channels, 2 * channels, 3))


class YoloBlock(nn.ModuleDict):
    """Five alternating 1x1 and 3x3 layers that end in the route, and the 3x3 `tip` after it.

    Layers are named `0.0`, `0.1`, `1.0`, `1.1`, `2` (the route) and `tip`.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the route. The 3x3 layers have twice as many.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__(
            {
                "0": _layer_pair(in_channels, channels),
                "1": _layer_pair(2 * channels, channels),
                "2": _layer(2 * channels, channels, 1),
                "tip": _layer(channels, 2 * channels, 3),
            }
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the route, `(n, channels, h, w)`, and the tip, `(n, 2 * channels, h, w)`."""
        route: Tensor = self["2"](self["1"](self["0"](images)))
        return route, self["tip"](route)


class YOLOv3(nn.Module):
    """A backbone and the three-scale head.

    Args:
        backbone: Returns maps at stride 8, 16 and 32; its attribute `channels` holds their
            channels.
        num_classes: Classes without background.
        width: Multiplies the channels of the head, not those of the backbone.
        geometry: Anchors per output map, coarsest map first.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        *,
        width: float = 1.0,
        geometry: YoloGeometry = COCO_GEOMETRY,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.yolo_block = nn.ModuleList()
        self.yolo_transition = nn.ModuleList()
        self.yolo_output = nn.ModuleList()
        num_scales = len(geometry.masks)
        route_channels = 0
        feature_channels: Sequence[int] = tuple(backbone.channels)[::-1]  # type: ignore[arg-type]
        for index, (mask, in_channels) in enumerate(
            zip(geometry.masks, feature_channels, strict=True)
        ):
            channels = scaled(64 * 2**num_scales >> index, width)
            self.yolo_block.append(YoloBlock(route_channels + in_channels, channels))
            output = nn.Conv2d(2 * channels, len(mask) * (5 + num_classes), 1)
            self.yolo_output.append(nn.ModuleDict({"conv": output}))
            if index < num_scales - 1:
                route_channels = scaled(channels // 2, 1.0)
                self.yolo_transition.append(_layer(channels, route_channels, 1))
        for part in (self.yolo_block, self.yolo_transition, self.yolo_output):
            initialise_convolutions(part)
        self._initialise_outputs(num_classes)

    def _initialise_outputs(self, num_classes: int) -> None:
        prior = -math.log((1 - OBJECTNESS_PRIOR) / OBJECTNESS_PRIOR)
        for output in self.yolo_output:
            convolution = output.get_submodule("conv")
            if convolution.get_parameter("weight").is_meta:
                continue
            with torch.no_grad():
                nn.init.normal_(convolution.get_parameter("weight"), std=0.01)
                convolution.get_parameter("bias").view(-1, 5 + num_classes)[:, 4] = prior

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the raw maps, coarsest first.

        Args:
            images: `(n, 3, h, w)`; h and w divide by 32.

        Returns:
            Maps `(n, anchors * (5 + classes), h/32, w/32)`, then at 16 and at 8. Channels are
            anchor-major. The channels of one anchor are tx, ty, tw, th, objectness, classes.
        """
        maps: list[Tensor] = []
        current: Tensor | None = None
        for index, feature in enumerate(self.backbone(images)[::-1]):
            joined = feature if current is None else torch.cat((current, feature), dim=1)
            route, tip = self.yolo_block[index](joined)
            maps.append(self.yolo_output[index].get_submodule("conv")(tip))
            if index < len(self.yolo_transition):
                narrowed = self.yolo_transition[index](route)
                current = functional.interpolate(narrowed, scale_factor=2, mode="nearest")
        return tuple(maps)
