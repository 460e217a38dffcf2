"""Region proposals of two-stage detectors (Faster R-CNN, arXiv 1506.01497, section 3).

All shapes are fixed: each image gets the same number of proposals, with padding if there are fewer.
So a network that contains non-maximum suppression can be traced and exported.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from flyweight.zoo.detectors.box_encoding import clip, decode, precise
from flyweight.zoo.detectors.suppression import survivors

PLAIN = (1.0, 1.0, 1.0, 1.0)
"""Weights of the deltas of proposals: all ones."""

LEAST_SIDE = 1e-3
"""Shortest side of a proposal in pixels. Smaller proposals cannot be pooled and are dropped."""


@dataclass(frozen=True)
class AnchorLevel:
    """The anchors of one map.

    Attributes:
        stride: Input pixels per cell.
        sizes: Square roots of the areas of the anchors, in input pixels.
        ratios: Heights over widths of the anchors.
    """

    stride: int
    sizes: tuple[float, ...]
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)

    @property
    def count(self) -> int:
        """Anchors per cell."""
        return len(self.sizes) * len(self.ratios)

    def shapes(self) -> list[tuple[float, float]]:
        """Return width and height of the anchors of a cell: ratios in the outer loop, sizes inside.

        As in the originals, the shape of an anchor of one cell is rounded and then scaled: for
        ratio 0.5 and size 32 at stride 16 it is 46 x 24.

        Example:
            >>> AnchorLevel(16, (32.0,), (0.5, 1.0)).shapes()
            [(46.0, 24.0), (32.0, 32.0)]
        """
        found = []
        for ratio in self.ratios:
            width = _rounded(math.sqrt(self.stride**2 / ratio))
            height = _rounded(width * ratio)
            found += [
                (width * size / self.stride, height * size / self.stride) for size in self.sizes
            ]
        return found

    def grid(self, height: int, width: int) -> Tensor:
        """Return the anchors of a map, xyxy in input pixels.

        Args:
            height: Rows of the map.
            width: Columns of the map.

        Returns:
            `(height * width * count, 4)` float32, row after row, cell after cell.
        """
        halves = torch.tensor(self.shapes()) / 2
        around = torch.cat((-halves, halves), dim=1)
        rows = (torch.arange(height, dtype=torch.float32) + 0.5) * self.stride
        columns = (torch.arange(width, dtype=torch.float32) + 0.5) * self.stride
        down, across = torch.meshgrid(rows, columns, indexing="ij")
        centres = torch.stack((across, down, across, down), dim=-1).reshape(-1, 1, 4)
        return (centres + around).reshape(-1, 4)


def _rounded(value: float) -> int:
    """Round half up, as C does; Python rounds half to even."""
    return math.floor(value + 0.5)


class AnchorScores(NamedTuple):
    """Outputs of the network for every anchor, level after level.

    Attributes:
        objectness: Logits, `(n, anchors)`.
        offsets: Deltas, `(n, anchors, 4)`.
        anchors: xyxy in input pixels, `(anchors, 4)`.
        counts: Number of anchors of every level.
    """

    objectness: Tensor
    offsets: Tensor
    anchors: Tensor
    counts: tuple[int, ...]


class Proposals(NamedTuple):
    """The best regions of every image.

    Attributes:
        boxes: xyxy in input pixels, clipped, by descending objectness, `(n, proposals, 4)`; rows
            from `counts` on are zeros.
        counts: Proposals of every image, `(n,)` int64.
    """

    boxes: Tensor
    counts: Tensor


class ProposalLimits(NamedTuple):
    """Numbers of regions before and after non-maximum suppression.

    Attributes:
        before: Best anchors of each level that enter suppression.
        after: Best regions of all levels together that are kept.
        overlap: A region with a larger IoU with a better one of its level is suppressed.
    """

    before: int
    after: int
    overlap: float = 0.7


class RegionProposalHead(nn.Module):
    """One 3x3 layer and two 1x1 layers, with the same weights on every map.

    The layers have the names of the original.

    Args:
        in_channels: Channels of the maps.
        channels: Output channels of the 3x3 layer.
        levels: The anchors of every map.
    """

    def __init__(self, in_channels: int, channels: int, levels: Sequence[AnchorLevel]) -> None:
        super().__init__()
        self.levels = tuple(levels)
        count = self.levels[0].count
        self.conv_rpn = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.rpn_cls_logits = nn.Conv2d(channels, count, 1)
        self.rpn_bbox_pred = nn.Conv2d(channels, 4 * count, 1)
        for layer in (self.conv_rpn, self.rpn_cls_logits, self.rpn_bbox_pred):
            if not layer.weight.is_meta:
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, maps: Sequence[Tensor]) -> AnchorScores:
        """Return logits, deltas and anchors of all maps, each `(n, in_channels, h, w)`."""
        logits, offsets, anchors = [], [], []
        for level, features in zip(self.levels, maps, strict=True):
            hidden = functional.relu(self.conv_rpn(features))
            batch, _, height, width = hidden.shape
            logits.append(precise(self.rpn_cls_logits(hidden)).permute(0, 2, 3, 1).flatten(1))
            raw = precise(self.rpn_bbox_pred(hidden)).permute(0, 2, 3, 1)
            offsets.append(raw.reshape(batch, -1, 4))
            anchors.append(level.grid(height, width).to(offsets[-1]))
        counts = tuple(len(level) for level in anchors)
        return AnchorScores(
            torch.cat(logits, dim=1), torch.cat(offsets, dim=1), torch.cat(anchors), counts
        )


def propose(scores: AnchorScores, size: Sequence[int], limits: ProposalLimits) -> Proposals:
    """Return the best regions of every image.

    Args:
        scores: Result of `RegionProposalHead`.
        size: Height and width of the images.
        limits: Numbers of regions.
    """
    boxes, values, start = [], [], 0
    for count in scores.counts:
        level = slice(start, start + count)
        start += count
        best, place = scores.objectness[:, level].sigmoid().topk(min(limits.before, count), dim=1)
        chosen = place.unsqueeze(-1).expand(-1, -1, 4)
        anchors = scores.anchors[level].expand(len(place), -1, -1).gather(1, chosen)
        deltas = scores.offsets[:, level].gather(1, chosen)
        regions = clip(decode(deltas, anchors, PLAIN), size)
        sides = regions[..., 2:] - regions[..., :2]
        usable = (sides >= LEAST_SIDE).all(dim=-1)
        best = torch.where(usable, best, torch.zeros_like(best))
        kept = survivors(regions, best, limits.overlap, 0.0)
        boxes.append(regions)
        values.append(torch.where(kept, best, torch.full_like(best, -1.0)))
    every, ranked = torch.cat(boxes, dim=1), torch.cat(values, dim=1)
    best, place = ranked.topk(min(limits.after, ranked.shape[1]), dim=1)
    chosen_boxes = every.gather(1, place.unsqueeze(-1).expand(-1, -1, 4))
    real = best >= 0
    return Proposals(chosen_boxes * real.unsqueeze(-1), real.sum(dim=1))
