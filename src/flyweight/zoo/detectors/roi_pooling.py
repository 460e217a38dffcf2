"""Pooling of maps under boxes to one size: RoIAlign (Mask R-CNN, arXiv 1703.06870, section 3)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flyweight.zoo import library_parts
from flyweight.zoo.detectors.box_encoding import areas, precise

_SAME = 1e-6  # A side at the border between two levels goes to the coarser one despite rounding.


def with_images(boxes: Sequence[Tensor]) -> Tensor:
    """Return boxes with the index of their image in the first column, `(all boxes, 5)`.

    Args:
        boxes: Boxes of every image, `(count, 4)` each.
    """
    numbered = [
        torch.cat((torch.full_like(one[:, :1], index), one), dim=1)
        for index, one in enumerate(boxes)
    ]
    return torch.cat(numbered)


def with_image_of_rows(boxes: Tensor) -> Tensor:
    """Return boxes `(n, count, 4)` with the index of their image, `(n * count, 5)`."""
    batch, count, _ = boxes.shape
    numbers = torch.arange(batch, device=boxes.device, dtype=boxes.dtype)
    return torch.cat((numbers.reshape(-1, 1, 1).expand(-1, count, 1), boxes), dim=-1).flatten(0, 1)


class RoiPool(nn.Module):
    """RoIAlign on one map.

    Args:
        side: Rows and columns of the result.
        stride: Input pixels per cell of the map.
        samples: Samples per cell and axis of the result; 0 means as many as there are cells of the
            map under it.
    """

    def __init__(self, side: int, stride: int, samples: int = 0) -> None:
        super().__init__()
        self.side, self.stride, self.samples = side, stride, samples

    def forward(self, maps: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Return the pooled maps of the boxes.

        Args:
            maps: One map, `(n, c, h, w)`.
            rois: Index of the image and xyxy in input pixels, `(boxes, 5)`.

        Returns:
            `(boxes, c, side, side)`.
        """
        (features,) = maps
        return _pooled(features, rois, self.side, self.stride, self.samples)


class PyramidRoiPool(nn.Module):
    """RoIAlign on the map that fits the size of the box (FPN, arXiv 1612.03144, equation 1).

    In evaluation every box is pooled from every map and the result of the right map is selected, so
    that all shapes are fixed. In training this would take most of the time of a step, so each box
    is pooled once.

    Args:
        side: Rows and columns of the result.
        levels: Number of every map. The stride of map number n is 2 ** n.
        canonical_level: Number of the map for boxes of `canonical_side`.
        canonical_side: Square root of the area of a box, in input pixels.
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
        """Return the pooled maps of the boxes, `(boxes, c, side, side)`.

        Args:
            maps: One per level, finest first; further maps are ignored.
            rois: Index of the image and xyxy in input pixels, `(boxes, 5)`.
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
        """Return the number of the map for each of the boxes `(n, 4)`."""
        sides = areas(boxes).sqrt() / self.canonical_side
        levels = torch.floor(self.canonical_level + torch.log2(sides + _SAME))
        return levels.clamp(self.levels[0], self.levels[-1])


def _pooled(features: Tensor, rois: Tensor, side: int, stride: int, samples: int) -> Tensor:
    source = precise(features)
    boxes = rois.to(source.dtype)
    pooled: Tensor = library_parts.roi_align(source, boxes, side, 1 / stride, samples)
    return pooled
