"""Heads of a two-stage detector: the class of a region, a refined box, and a mask."""

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from flyweight.zoo.detectors.box_encoding import precise


class RoiOutputs(NamedTuple):
    """Outputs of a head for regions.

    Attributes:
        logits: `(regions, 1 + classes)`; the first is background.
        deltas: `(regions, boxes, 4)`: one box for all classes or one per class.
        features: Output of the body.
    """

    logits: Tensor
    deltas: Tensor
    features: Tensor


class RoiHead(nn.Module):
    """A body and two linear layers with the names of the original.

    Args:
        body: Converts pooled maps into vectors `(regions, channels)`, or into maps that are then
            averaged over space.
        channels: Channels of the vectors.
        num_classes: Number of classes without background.
        class_specific: Whether every class has its own box.
    """

    def __init__(
        self, body: nn.Module, channels: int, num_classes: int, *, class_specific: bool
    ) -> None:
        super().__init__()
        self.body = body
        self.cls_score = nn.Linear(channels, 1 + num_classes)
        self.bbox_pred = nn.Linear(channels, 4 * (num_classes if class_specific else 1))
        for layer, spread in ((self.cls_score, 0.01), (self.bbox_pred, 0.001)):
            if not layer.weight.is_meta:
                nn.init.normal_(layer.weight, std=spread)
                nn.init.zeros_(layer.bias)

    def forward(self, pooled: Tensor) -> RoiOutputs:
        """Return the outputs for pooled maps, `(regions, c, side, side)`."""
        features = self.body(pooled)
        return RoiOutputs(self.logits_of(features), self.deltas_of(features), features)

    def logits_of(self, features: Tensor) -> Tensor:
        """Return logits `(regions, 1 + classes)` for the output of the body."""
        return precise(self.cls_score(_vectors(features)))

    def deltas_of(self, features: Tensor) -> Tensor:
        """Return deltas `(regions, boxes, 4)` for the output of the body."""
        deltas = precise(self.bbox_pred(_vectors(features)))
        return deltas.reshape(len(deltas), -1, 4)


def _vectors(features: Tensor) -> Tensor:
    return features.mean(dim=(2, 3)) if features.dim() == 4 else features


class TwoLayerBody(nn.Module):
    """Two linear layers with ReLU on the flattened map (FPN, arXiv 1612.03144, section 4.2).

    Args:
        in_channels: Number of values of a flattened map.
        channels: Output channels of both layers.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.fc6 = nn.Linear(in_channels, channels)
        self.fc7 = nn.Linear(channels, channels)
        for layer in (self.fc6, self.fc7):
            if not layer.weight.is_meta:
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, pooled: Tensor) -> Tensor:
        """Return vectors `(regions, channels)` for maps `(regions, c, side, side)`."""
        return functional.relu(self.fc7(functional.relu(self.fc6(pooled.flatten(1)))))


class MaskHead(nn.Module):
    """A transposed convolution that doubles the map, then one mask per class.

    Its input is the output of the body of the box head (Mask R-CNN, arXiv 1703.06870, figure 4,
    left). The layers have the names of the original.

    Args:
        in_channels: Channels of the maps.
        channels: Channels of the doubled map.
        num_classes: Number of classes without background.
    """

    def __init__(self, in_channels: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv5_mask = nn.ConvTranspose2d(in_channels, channels, 2, stride=2)
        self.mask_fcn_logits = nn.Conv2d(channels, num_classes, 1)
        for layer in (self.conv5_mask, self.mask_fcn_logits):
            if not layer.weight.is_meta:
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Tensor:
        """Return logits `(regions, classes, 2 * side, 2 * side)`."""
        return precise(self.mask_fcn_logits(functional.relu(self.conv5_mask(features))))
