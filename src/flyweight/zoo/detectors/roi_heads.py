"""What a two-stage detector says of a region: its class, a better box, a mask."""

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from flyweight.zoo.detectors.box_encoding import precise


class RoiOutputs(NamedTuple):
    """What a head says of regions.

    Attributes:
        logits: `(regions, 1 + classes)`; the first is background.
        deltas: `(regions, boxes, 4)`: one box for all classes or one per class.
        features: What the body made of them.
    """

    logits: Tensor
    deltas: Tensor
    features: Tensor


class RoiHead(nn.Module):
    """A body and two linear layers, which have the originals' names.

    Args:
        body: Turns pooled maps into vectors `(regions, channels)`, or into maps whose mean is
            taken.
        channels: Of the vectors.
        num_classes: Without background.
        class_specific: Whether every class has a box of its own.
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
        """Return what is said of pooled maps, `(regions, c, side, side)`."""
        features = self.body(pooled)
        return RoiOutputs(self.logits_of(features), self.deltas_of(features), features)

    def logits_of(self, features: Tensor) -> Tensor:
        """Return `(regions, 1 + classes)` of what the body made."""
        return precise(self.cls_score(_vectors(features)))

    def deltas_of(self, features: Tensor) -> Tensor:
        """Return `(regions, boxes, 4)` of what the body made."""
        deltas = precise(self.bbox_pred(_vectors(features)))
        return deltas.reshape(len(deltas), -1, 4)


def _vectors(features: Tensor) -> Tensor:
    return features.mean(dim=(2, 3)) if features.dim() == 4 else features


class TwoLayerBody(nn.Module):
    """Two linear layers with ReLU on the flattened map (FPN, arXiv 1612.03144, section 4.2).

    Args:
        in_channels: Values of a flattened map.
        channels: Of both layers.
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
        """Return vectors `(regions, channels)` of maps `(regions, c, side, side)`."""
        return functional.relu(self.fc7(functional.relu(self.fc6(pooled.flatten(1)))))


class MaskHead(nn.Module):
    """A transposed convolution that doubles the map, then a mask per class.

    It reads what the body of the box head made (Mask R-CNN, arXiv 1703.06870, figure 4, left). The
    layers have the originals' names.

    Args:
        in_channels: Channels of the maps.
        channels: Of the doubled map.
        num_classes: Without background.
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
