"""Feature pyramid network (FPN, arXiv 1612.03144) as PaddleDetection built it."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional


class FeaturePyramid(nn.Module):
    """Maps of equal width at every stride; each map includes the upsampled coarser maps.

    Lateral layers are 1x1, output layers 3x3, all with bias and without norm. Levels coarser than
    those of the backbone are 3x3 layers of stride 2, the first on the coarsest map of the backbone
    (RetinaNet, arXiv 1708.02002, note 2).

    Args:
        in_channels: Channels of the backbone's maps, finest first.
        channels: Channels of every returned map.
        first_level: Number of the finest map. The stride of map number n is 2 ** n.
        last_level: Number of the coarsest result.
    """

    def __init__(
        self, in_channels: Sequence[int], channels: int, *, first_level: int, last_level: int
    ) -> None:
        super().__init__()
        own = range(first_level, first_level + len(in_channels))
        self.lateral, self.output, self.extra = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        for level, width in zip(own, in_channels, strict=True):
            self.lateral[str(level)] = nn.Conv2d(width, channels, 1)
            self.output[str(level)] = nn.Conv2d(channels, channels, 3, padding=1)
        width = in_channels[-1]
        for level in range(own[-1] + 1, last_level + 1):
            self.extra[str(level)] = nn.Conv2d(width, channels, 3, stride=2, padding=1)
            width = channels
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d) and not layer.weight.is_meta:
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return one map per level, finest first.

        Args:
            maps: Maps of the backbone, finest first, each half as large as the one before.
        """
        laterals = [layer(one) for layer, one in zip(self.lateral.values(), maps, strict=True)]
        for place in range(len(laterals) - 2, -1, -1):
            coarser = functional.interpolate(
                laterals[place + 1], size=laterals[place].shape[-2:], mode="nearest"
            )
            laterals[place] = laterals[place] + coarser
        results = [layer(one) for layer, one in zip(self.output.values(), laterals, strict=True)]
        current = maps[-1]
        for place, layer in enumerate(self.extra.values()):
            current = layer(functional.relu(current) if place else current)
            results.append(current)
        return tuple(results)
