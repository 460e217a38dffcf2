"""Loss of YOLOv3 (arXiv 1804.02767, section 2) as PaddlePaddle's `yolov3_loss` computes it.

An object belongs to one anchor in the cell of its centre: that of all scales whose shape overlaps
the object's most. This anchor learns offsets, objectness and class; all other anchors learn an
objectness of zero, except those whose box overlaps an object by more than `ignore_threshold`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from flyweight.data.batch import BoxTarget
from flyweight.tasks.decoding.yolo import decode_offsets, split_map
from flyweight.zoo.detectors.yolo import YoloGeometry

_SMALLEST_SIDE = 1e-6
_SMALLEST_WEIGHT = 1e-5
"""Smaller objects, as fractions of the image, and smaller weights do not count in the original."""


@dataclass(frozen=True)
class YoloLossSettings:
    """Settings of the loss.

    Attributes:
        ignore_threshold: IoU with an object above which an anchor does not learn to be empty.
        label_smoothing: Targets of the classes are `1 - d` and `d` instead of 1 and 0, where `d`
            is the smaller of one over the number of classes and 1/40.
    """

    ignore_threshold: float = 0.7
    label_smoothing: bool = False


@dataclass(frozen=True)
class _Objects:
    """The objects of a batch, padded to one length; lengths are fractions of the input.

    Attributes:
        centres: `(n, objects, 2)`.
        sizes: `(n, objects, 2)`.
        labels: `(n, objects)` int64.
        weights: `(n, objects)`.
        present: `(n, objects)` bool, False for padding and boxes without area.
        learned: `(n, objects)` bool, those present that are not crowds.
        best: `(n, objects)` int64, the anchor whose shape fits best.
    """

    centres: Tensor
    sizes: Tensor
    labels: Tensor
    weights: Tensor
    present: Tensor
    learned: Tensor
    best: Tensor


@dataclass(frozen=True)
class _Positives:
    """The objects that belong to one scale, in the order of the batch.

    Attributes:
        images: Position of the image in the batch; this and all others `(positives,)` int64.
        objects: Position of the object in the padded batch.
        anchors: Position among the anchors of this scale.
        rows: Row of the map.
        columns: Column of the map.
    """

    images: Tensor
    objects: Tensor
    anchors: Tensor
    rows: Tensor
    columns: Tensor


def yolo_loss(
    maps: Sequence[Tensor],
    targets: Sequence[BoxTarget],
    geometry: YoloGeometry,
    num_classes: int,
    settings: YoloLossSettings,
) -> dict[str, Tensor]:
    """Return the loss and its four terms, computed in float32.

    Terms are summed over cells, anchors and scales and averaged over images. Objects of a crowd
    are not learned, and anchors on them do not learn to be empty either.

    Args:
        maps: Raw maps in the order of `geometry`, each `(n, anchors * (5 + classes), h, w)`.
        targets: One per image, boxes in input pixels.
        geometry: Anchors and strides of the maps.
        num_classes: Classes without background.
        settings: Threshold and smoothing.

    Returns:
        Scalars `loss_xy`, `loss_wh`, `loss_obj`, `loss_cls`, and their sum `loss`.

    Raises:
        ConfigError: The maps' channels do not fit the number of classes.
    """
    with torch.autocast(maps[0].device.type, enabled=False):
        stride = geometry.strides[0]
        input_size = (maps[0].shape[-1] * stride, maps[0].shape[-2] * stride)
        objects = _pad(targets, geometry, input_size)
        totals: dict[str, Tensor] = {}
        for scale, raw in enumerate(maps):
            parts = split_map(raw, len(geometry.masks[scale]), num_classes)
            terms = _scale_loss(parts, objects, geometry, scale, settings)
            for name, value in terms.items():
                totals[name] = totals[name] + value if name in totals else value
        means = {name: value / len(targets) for name, value in totals.items()}
        return {**means, "loss": torch.stack(tuple(means.values())).sum()}


def _pad(
    targets: Sequence[BoxTarget], geometry: YoloGeometry, input_size: tuple[int, int]
) -> _Objects:
    # At least one row, so that a batch without objects needs no special case.
    length = max(1, *(len(target.boxes) for target in targets))
    device = targets[0].boxes.device

    def padded(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        full = torch.zeros((len(targets), length, *shape), dtype=dtype, device=device)
        for row, target in zip(full, targets, strict=True):
            values: Tensor = getattr(target, name)
            row[: len(values)] = values
        return full

    extent = torch.tensor(input_size, dtype=torch.float32, device=device)
    boxes = padded("boxes", (4,), torch.float32)
    sizes = (boxes[..., 2:] - boxes[..., :2]) / extent
    present = (sizes > _SMALLEST_SIDE).all(dim=-1)
    shapes = torch.tensor(geometry.anchors, dtype=torch.float32, device=device) / extent
    return _Objects(
        centres=(boxes[..., 2:] + boxes[..., :2]) / 2 / extent,
        sizes=sizes,
        labels=padded("labels", (), torch.int64),
        weights=padded("weights", (), torch.float32),
        present=present,
        learned=present & ~padded("crowd", (), torch.bool),
        best=_shape_overlap(sizes, shapes).argmax(dim=-1),
    )


def _shape_overlap(sizes: Tensor, shapes: Tensor) -> Tensor:
    """Return the IoU of boxes `(n, objects, 2)` and anchors `(anchors, 2)` with a common centre."""
    shared = torch.minimum(sizes[:, :, None], shapes).prod(dim=-1)
    return shared / (sizes.prod(dim=-1)[..., None] + shapes.prod(dim=-1) - shared)


def _assign(objects: _Objects, mask: tuple[int, ...], width: int, height: int) -> _Positives:
    fits = objects.best[..., None] == torch.tensor(mask, device=objects.best.device)
    images, rows_of_objects, anchors = (fits & objects.learned[..., None]).nonzero(as_tuple=True)
    centres = objects.centres[images, rows_of_objects]
    return _Positives(
        images,
        rows_of_objects,
        anchors,
        # A centre on the far edge belongs to the last cell.
        rows=(centres[:, 1] * height).long().clamp(0, height - 1),
        columns=(centres[:, 0] * width).long().clamp(0, width - 1),
    )


def _scale_loss(
    parts: Tensor,
    objects: _Objects,
    geometry: YoloGeometry,
    scale: int,
    settings: YoloLossSettings,
) -> dict[str, Tensor]:
    height, width = parts.shape[-2:]
    stride = geometry.strides[scale]
    positives = _assign(objects, geometry.masks[scale], width, height)
    where = (positives.images, positives.objects)
    weights = objects.weights[where]
    found = parts[positives.images, positives.anchors, :, positives.rows, positives.columns]
    extent = parts.new_tensor((width, height))
    cells = torch.stack((positives.columns, positives.rows), dim=1)
    shapes = parts.new_tensor(geometry.anchors_of(scale))[positives.anchors] / (extent * stride)
    sizes = objects.sizes[where]
    # Small boxes count up to twice as much as large ones.
    emphasis = ((2 - sizes.prod(dim=1)) * weights)[:, None]
    wanted_centres = objects.centres[where] * extent - cells
    wanted_sizes = (sizes / shapes).log()
    classes = _class_targets(objects.labels[where], parts.shape[2] - 5, settings.label_smoothing)
    return {
        "loss_xy": (_cross_entropy(found[:, :2], wanted_centres) * emphasis).sum(),
        "loss_wh": ((found[:, 2:4] - wanted_sizes).abs() * emphasis).sum(),
        "loss_obj": _objectness_loss(parts, objects, positives, geometry, scale, settings),
        "loss_cls": (_cross_entropy(found[:, 5:], classes) * weights[:, None]).sum(),
    }


def _cross_entropy(logits: Tensor, wanted: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")


def _class_targets(labels: Tensor, num_classes: int, smoothing: bool) -> Tensor:
    low = min(1 / num_classes, 1 / 40) if smoothing else 0.0
    return functional.one_hot(labels, num_classes).float() * (1 - 2 * low) + low


def _objectness_loss(
    parts: Tensor,
    objects: _Objects,
    positives: _Positives,
    geometry: YoloGeometry,
    scale: int,
    settings: YoloLossSettings,
) -> Tensor:
    with torch.no_grad():
        boxes = decode_offsets(parts, geometry.anchors_of(scale), geometry.strides[scale])
        stride = geometry.strides[scale]
        extent = parts.new_tensor((parts.shape[-1] * stride, parts.shape[-2] * stride))
        near = _near_an_object(boxes.flatten(1, 3), objects, extent, settings.ignore_threshold)
        shape = (parts.shape[0], parts.shape[1], *parts.shape[3:])
        weights = _weights_of_cells(objects, positives, shape)
        held = weights > _SMALLEST_WEIGHT
        # A cell whose object mixup gave a weight of zero is empty, even if its box fits the object.
        ignored = near.view(shape) & weights.isnan()
        empty = ~held & ~ignored
        cell_weights = torch.where(held, weights, empty.float())
    return (_cross_entropy(parts[:, :, 4], held.float()) * cell_weights).sum()


def _weights_of_cells(objects: _Objects, positives: _Positives, shape: tuple[int, ...]) -> Tensor:
    """Return the weight of the object of each anchor and cell, NaN where there is none.

    If several objects have the same anchor and cell, the last counts, as in the original.
    """
    _, num_anchors, height, width = shape
    place = (positives.images * num_anchors + positives.anchors) * height + positives.rows
    place = place * width + positives.columns
    num_places = shape[0] * num_anchors * height * width
    none = torch.full((num_places,), -1, dtype=torch.int64, device=place.device)
    order = torch.arange(len(place), device=place.device)
    last = none.scatter_reduce(0, place, order, reduce="amax")
    weights = objects.weights[positives.images, positives.objects]
    weights = torch.cat((weights, weights.new_full((1,), torch.nan)))
    return weights[last].view(shape)


def _near_an_object(boxes: Tensor, objects: _Objects, extent: Tensor, threshold: float) -> Tensor:
    """Return which boxes `(n, anchors, 4)` in pixels have an IoU above `threshold`."""
    halves = objects.sizes / 2
    low, high = (objects.centres - halves) * extent, (objects.centres + halves) * extent
    areas = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    # inside / (area + area - inside) > t is equivalent to inside > (area + area) * t / (1 + t).
    # Tensors are (n, objects, anchors): with anchors innermost this takes a third of the time.
    share = threshold / (1 + threshold)
    object_areas = torch.where(objects.present, (high - low).prod(dim=-1), torch.inf)
    limits = (areas * share)[:, None] + (object_areas * share)[..., None]
    corners = boxes.permute(2, 0, 1).contiguous()
    sides = []
    for axis in (0, 1):
        side = torch.minimum(corners[axis + 2][:, None], high[..., axis, None])
        sides.append(side.sub_(torch.maximum(corners[axis][:, None], low[..., axis, None])))
    # One clamp is enough: a negative other side makes the product negative.
    inside = sides[0].clamp_(min=0).mul_(sides[1])
    return (inside > limits).any(dim=1)
