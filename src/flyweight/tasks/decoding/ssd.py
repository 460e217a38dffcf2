"""Decoding of SSD's raw maps: priors, and offsets from them (arXiv 1512.02325, section 2)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flyweight.errors import ConfigError
from flyweight.tasks.decoding.boxes import clip_boxes
from flyweight.zoo.detectors.ssd import SsdGeometry


def input_size(maps: Sequence[Tensor], geometry: SsdGeometry) -> tuple[int, int]:
    """Return height and width of the input of raw maps, as multiples of the stride."""
    rows, columns = maps[0].shape[-2:]
    step = geometry.levels[0].step
    return rows * step, columns * step


def make_priors(
    sizes: Sequence[tuple[int, int]],
    geometry: SsdGeometry,
    *,
    device: torch.device | str | None = None,
) -> Tensor:
    """Return every prior in the order of the maps: rows, columns, shapes of a cell.

    Args:
        sizes: Rows and columns of every level.
        geometry: Shapes and steps of every level.
        device: The device of the result.

    Returns:
        xyxy in input pixels, `(priors, 4)` float32.
    """
    height, width = (side * geometry.levels[0].step for side in sizes[0])
    base = geometry.base_size
    growth = (width / base, height / base) if base else (1.0, 1.0)
    boxes = []
    for (rows, columns), level in zip(sizes, geometry.levels, strict=True):
        # The original's step of 107 for cells of 320 / 3 pixels is used at its own size only.
        exact = growth == (1.0, 1.0)
        across, down = (level.step, level.step) if exact else (width / columns, height / rows)
        xs = (torch.arange(columns, device=device, dtype=torch.float32) + 0.5) * across
        ys = (torch.arange(rows, device=device, dtype=torch.float32) + 0.5) * down
        centres = torch.stack((xs.expand(rows, columns), ys[:, None].expand(rows, columns)), dim=-1)
        halves = xs.new_tensor(level.shapes) * xs.new_tensor(growth) / 2
        corners = (centres[:, :, None] - halves, centres[:, :, None] + halves)
        boxes.append(torch.cat(corners, dim=-1).reshape(-1, 4))
    priors = torch.cat(boxes)
    return clip_boxes(priors, (height, width)) if geometry.clip else priors


def priors_of(maps: Sequence[Tensor], geometry: SsdGeometry) -> Tensor:
    """Return the priors of raw maps, see `make_priors`."""
    sizes = [(raw.shape[-2], raw.shape[-1]) for raw in maps[0::2]]
    return make_priors(sizes, geometry, device=maps[0].device)


def join_maps(
    maps: Sequence[Tensor], geometry: SsdGeometry, num_classes: int
) -> tuple[Tensor, Tensor]:
    """Return the raw maps as one row per prior.

    Args:
        maps: Offsets and class logits of every level in turn, as `zoo.detectors.ssd.SSD` returns
            them.
        geometry: Priors of every level.
        num_classes: Classes without background.

    Returns:
        Offsets `(n, priors, 4)` and logits `(n, priors, 1 + classes)`, background first, float32.

    Raises:
        ConfigError: The maps' channels do not fit the number of classes.
    """
    columns = (4, 1 + num_classes)
    joined = []
    for kind, wide in enumerate(columns):
        rows = []
        for raw, level in zip(maps[kind::2], geometry.levels, strict=True):
            _require_channels(raw, len(level.shapes) * wide, num_classes)
            rows.append(raw.float().permute(0, 2, 3, 1).reshape(raw.shape[0], -1, wide))
        joined.append(torch.cat(rows, dim=1))
    return joined[0], joined[1]


def _require_channels(raw: Tensor, wanted: int, num_classes: int) -> None:
    if raw.shape[1] != wanted:
        raise ConfigError(
            f"A map for {num_classes} classes and the background must have {wanted} channels. "
            f"Received: {raw.shape[1]}. Create the model with as many classes as there are labels."
        )


def encode_boxes(boxes: Tensor, priors: Tensor, variances: tuple[float, float]) -> Tensor:
    """Return the offsets from priors to boxes; `decode_boxes` is the inverse.

    Args:
        boxes: xyxy `(..., 4)`, with an area.
        priors: xyxy `(..., 4)`, with an area.
        variances: See `SsdGeometry`.

    Returns:
        Centre's x and y, logarithms of width and height, `(..., 4)`.
    """
    centres, sizes = _centred(boxes)
    prior_centres, prior_sizes = _centred(priors)
    moved = (centres - prior_centres) / prior_sizes / variances[0]
    return torch.cat((moved, (sizes / prior_sizes).log() / variances[1]), dim=-1)


def decode_boxes(offsets: Tensor, priors: Tensor, variances: tuple[float, float]) -> Tensor:
    """Return the boxes at offsets from priors, xyxy `(..., 4)`, not clipped."""
    prior_centres, prior_sizes = _centred(priors)
    centres = prior_centres + offsets[..., :2] * variances[0] * prior_sizes
    halves = (offsets[..., 2:] * variances[1]).exp() * prior_sizes / 2
    return torch.cat((centres - halves, centres + halves), dim=-1)


def _centred(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the centres and the sizes of xyxy boxes, both `(..., 2)`."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return (low + high) / 2, high - low


class SsdDecoder(nn.Module):
    """Decoder from raw maps to boxes and scores; also the last layer of an exported graph.

    Args:
        geometry: Priors of the raw maps.
        num_classes: Classes without background.
    """

    def __init__(self, geometry: SsdGeometry, num_classes: int) -> None:
        super().__init__()
        self.geometry = geometry
        self.num_classes = num_classes

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return boxes and scores of every prior.

        Args:
            maps: As `zoo.detectors.ssd.SSD` returns them.

        Returns:
            Boxes, xyxy in input pixels, clipped to the input, `(n, priors, 4)` float32, and the
            probabilities of the classes, without the background's, `(n, priors, classes)`.

        Raises:
            ConfigError: The maps' channels do not fit the number of classes.
        """
        offsets, logits = join_maps(maps, self.geometry, self.num_classes)
        priors = priors_of(maps, self.geometry)
        boxes = decode_boxes(offsets, priors, self.geometry.variances)
        size = input_size(maps, self.geometry)
        return clip_boxes(boxes, size), logits.softmax(dim=-1)[..., 1:]
