"""Maps under boxes, resampled to one size: RoIAlign (Mask R-CNN, arXiv 1703.06870, section 3)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flyweight.zoo.detectors.box_encoding import areas, precise

_SAME = 1e-6  # A side just on the border between two levels goes to the coarser, whatever its bits.


def with_images(boxes: Sequence[Tensor]) -> Tensor:
    """Return boxes with the number of their image before them, `(all boxes, 5)`.

    Args:
        boxes: Of every image, `(count, 4)` each.
    """
    numbered = [
        torch.cat((torch.full_like(one[:, :1], index), one), dim=1)
        for index, one in enumerate(boxes)
    ]
    return torch.cat(numbered)


def with_image_of_rows(boxes: Tensor) -> Tensor:
    """Return boxes `(n, count, 4)` with the number of their image, `(n * count, 5)`."""
    batch, count, _ = boxes.shape
    numbers = torch.arange(batch, device=boxes.device, dtype=boxes.dtype)
    return torch.cat((numbers.reshape(-1, 1, 1).expand(-1, count, 1), boxes), dim=-1).flatten(0, 1)


class RoiPool(nn.Module):
    """RoIAlign on one map.

    Args:
        side: Rows and columns of the result.
        stride: Input pixels per cell of the map.
        samples: Samples per cell and axis of the result; 0 takes as many as cells lie under it.
    """

    def __init__(self, side: int, stride: int, samples: int = 0) -> None:
        super().__init__()
        self.side, self.stride, self.samples = side, stride, samples

    def forward(self, maps: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Return what lies under the boxes.

        Args:
            maps: The map, `(n, c, h, w)`, alone.
            rois: Image and xyxy in input pixels, `(boxes, 5)`.

        Returns:
            `(boxes, c, side, side)`.
        """
        (features,) = maps
        return _pooled(features, rois, self.side, self.stride, self.samples)


class PyramidRoiPool(nn.Module):
    """RoIAlign on the map whose resolution suits the box (FPN, arXiv 1612.03144, equation 1).

    In evaluation every box is pooled from every map and the right one is chosen, so that all shapes
    are fixed; training, where that would cost most of a step, pools each box once.

    Args:
        side: Rows and columns of the result.
        levels: Number of every map; its stride is two to the power of it.
        canonical_level: The map that boxes of `canonical_side` are read from.
        canonical_side: Root of a box's area in input pixels.
        samples: Samples per cell and axis of the result.
    """

    def __init__(
        self,
        side: int,
        levels: Sequence[int],
        *,
        canonical_level: int,
        canonical_side: float,
        samples: int = 2,
    ) -> None:
        super().__init__()
        self.side, self.levels, self.samples = side, tuple(levels), samples
        self.canonical_level, self.canonical_side = canonical_level, canonical_side

    def forward(self, maps: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Return what lies under the boxes, `(boxes, c, side, side)`.

        Args:
            maps: One per level, finest first; further ones are not looked at.
            rois: Image and xyxy in input pixels, `(boxes, 5)`.
        """
        chosen = self.level_of(rois[:, 1:])
        if self.training:
            places = [torch.where(chosen == level)[0] for level in self.levels]
            parts = [self._at(level, maps, rois[rows]) for level, rows in enumerate(places)]
            return torch.cat(parts)[torch.cat(places).argsort()]
        pooled = self._at(0, maps, rois)
        for place, level in enumerate(self.levels[1:], 1):
            here = (chosen == level)[:, None, None, None]
            pooled = torch.where(here, self._at(place, maps, rois), pooled)
        return pooled

    def _at(self, place: int, maps: Sequence[Tensor], rois: Tensor) -> Tensor:
        return _pooled(maps[place], rois, self.side, 2 ** self.levels[place], self.samples)

    def level_of(self, boxes: Tensor) -> Tensor:
        """Return the number of the map that each of the boxes `(n, 4)` is read from."""
        sides = areas(boxes).sqrt() / self.canonical_side
        levels = torch.floor(self.canonical_level + torch.log2(sides + _SAME))
        return levels.clamp(self.levels[0], self.levels[-1])


def _pooled(features: Tensor, rois: Tensor, side: int, stride: int, samples: int) -> Tensor:
    from torchvision.ops import roi_align  # takes seconds to import

    source = precise(features)
    pooled: Tensor = roi_align(source, rois.to(source.dtype), side, 1 / stride, samples)
    return pooled
