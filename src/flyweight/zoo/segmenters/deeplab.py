"""DeepLabV3+ (Chen et al. 2018, arXiv 1802.02611) on any backbone of timm that returns maps.

As in section 3.2 of the paper, the atrous convolutions and those of the decoder are depthwise
separable. There are two differences: the branch that pools the whole image has no batch norm,
because its statistics would be those of one pixel per image; and the network itself upsamples the
scores to the size of the image, as the other segmentation networks do.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import Conv2dNormActivation

_CHANNELS = 256
_LOW_CHANNELS = 48
_RATES = {16: (6, 12, 18), 8: (12, 24, 36)}
"""Stride of the last map of the backbone -> atrous rates, as in section 4 of the paper."""


def _separable(in_channels: int, out_channels: int, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(
        Conv2dNormActivation(in_channels, in_channels, 3, groups=in_channels, dilation=dilation),
        Conv2dNormActivation(in_channels, out_channels, 1),
    )


class Pyramid(nn.Module):
    """Atrous spatial pyramid pooling: a 1x1 layer, three dilated 3x3 layers, and global pooling.

    Args:
        in_channels: Channels of the last map of the backbone.
        rates: Dilation of each 3x3 layer.
    """

    def __init__(self, in_channels: int, rates: Sequence[int]) -> None:
        super().__init__()
        self.point = Conv2dNormActivation(in_channels, _CHANNELS, 1)
        self.atrous = nn.ModuleList(_separable(in_channels, _CHANNELS, rate) for rate in rates)
        self.whole = nn.Conv2d(in_channels, _CHANNELS, 1)
        self.project = Conv2dNormActivation((2 + len(rates)) * _CHANNELS, _CHANNELS, 1)
        self.dropout = nn.Dropout(0.1)

    def forward(self, features: Tensor) -> Tensor:
        """Return `(n, 256, h, w)` for features `(n, in_channels, h, w)`."""
        pooled = functional.relu(self.whole(features.mean(dim=(2, 3), keepdim=True)))
        branches = [self.point(features), *(branch(features) for branch in self.atrous)]
        branches.append(pooled.expand(-1, -1, *features.shape[-2:]))
        mixed: Tensor = self.dropout(self.project(torch.cat(branches, dim=1)))
        return mixed


class DeepLabV3Plus(nn.Module):
    """A backbone, the pyramid and the decoder.

    Args:
        backbone: Returns two maps, at stride 4 and at `output_stride`.
        channels: Channels of the two maps.
        num_classes: Number of classes, with the background if the data has it as a class.
        output_stride: 8 or 16.
    """

    def __init__(
        self,
        backbone: nn.Module,
        channels: tuple[int, int],
        num_classes: int,
        *,
        output_stride: int = 16,
    ) -> None:
        super().__init__()
        low, high = channels
        self.backbone = backbone
        self.pyramid = Pyramid(high, _RATES[output_stride])
        self.low = Conv2dNormActivation(low, _LOW_CHANNELS, 1)
        self.decoder = nn.Sequential(
            _separable(_CHANNELS + _LOW_CHANNELS, _CHANNELS), _separable(_CHANNELS, _CHANNELS)
        )
        self.classifier = nn.Conv2d(_CHANNELS, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return scores `(n, num_classes, h, w)` for images `(n, 3, h, w)`."""
        low, high = self.backbone(images)
        coarse = functional.interpolate(self.pyramid(high), size=low.shape[-2:], mode="bilinear")
        fine = self.decoder(torch.cat([coarse, self.low(low)], dim=1))
        scores: Tensor = self.classifier(fine)
        return functional.interpolate(scores, size=images.shape[-2:], mode="bilinear")
