"""Two-stage detectors: Faster, Mask and Cascade R-CNN.

Proposals (arXiv 1506.01497) are pooled and classified by one head, or by several heads of which
each gets the boxes that the one before has refined (arXiv 1712.00726). Masks (arXiv 1703.06870) are
computed for the detections after suppression.

In evaluation mode every shape is fixed, so the whole detector is traced, pruned and exported like a
classifier. In training mode the detector gets the objects and returns samples for the loss: the
network chooses the regions, and the task computes the loss.
"""

from collections.abc import Sequence
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from flyweight.errors import ConfigError
from flyweight.zoo import library_parts
from flyweight.zoo.detectors.assignment import (
    Objects,
    RoiTargets,
    label_rois,
    sample_anchors,
    sample_rois,
)
from flyweight.zoo.detectors.box_encoding import clip, decode, encode
from flyweight.zoo.detectors.region_proposals import (
    LEAST_SIDE,
    AnchorScores,
    Proposals,
    RegionProposalHead,
    propose,
)
from flyweight.zoo.detectors.roi_heads import RoiHead, RoiOutputs
from flyweight.zoo.detectors.roi_pooling import with_image_of_rows, with_images
from flyweight.zoo.detectors.two_stage_outputs import (
    HeadStage,
    MaskLimits,
    MaskOutputs,
    MaskSamples,
    StageSamples,
    TwoStageGeometry,
    TwoStageOutputs,
    TwoStageSamples,
    select,
)

_HEAD = r"(body\.)?(?P<layer>fc6|fc7|cls_score|bbox_pred)"

OLD_NAMES = (
    (r"heads\.0\.body\.(?P<layer>res.+)\.conv\.weight", "{layer}_weights"),
    (r"heads\.0\.body\.res(?P<layer>.+)\.bn\.(?P<statistic>\w+)", "bn{layer}_{statistic}"),
    (rf"heads\.0\.{_HEAD}\.weight", "{layer}_w"),
    (rf"heads\.0\.{_HEAD}\.bias", "{layer}_b"),
    (rf"heads\.1\.{_HEAD}\.weight", "{layer}_2_w"),
    (rf"heads\.1\.{_HEAD}\.bias", "{layer}_2_b"),
    (rf"heads\.2\.{_HEAD}\.weight", "{layer}_3_w"),
    (rf"heads\.2\.{_HEAD}\.bias", "{layer}_3_b"),
    (r"(rpn|mask_head)\.(?P<layer>\w+)\.weight", "{layer}_w"),
    (r"(rpn|mask_head)\.(?P<layer>\w+)\.bias", "{layer}_b"),
    # The coarsest map of the backbone has no coarser map to add.
    (r"neck\.lateral\.4\.weight", "fpn_inner_res4_sum_w"),
    (r"neck\.lateral\.4\.bias", "fpn_inner_res4_sum_b"),
    (r"neck\.lateral\.(?P<layer>\d)\.weight", "fpn_inner_res{layer}_sum_lateral_w"),
    (r"neck\.lateral\.(?P<layer>\d)\.bias", "fpn_inner_res{layer}_sum_lateral_b"),
    (r"neck\.output\.(?P<layer>\d)\.weight", "fpn_res{layer}_sum_w"),
    (r"neck\.output\.(?P<layer>\d)\.bias", "fpn_res{layer}_sum_b"),
    (r"neck\.extra\.(?P<layer>\d)\.weight", "fpn_{layer}_w"),
    (r"neck\.extra\.(?P<layer>\d)\.bias", "fpn_{layer}_b"),
)
"""Rules for the names of the parameters in PaddleDetection, see `old_names`."""


class TwoStageDetector(nn.Module):
    """A backbone, a proposal head, and heads that classify and refine the proposals.

    Args:
        backbone: Returns maps, finest first.
        neck: Converts them into the maps for proposals and heads; None uses them unchanged.
        rpn: Proposes regions.
        pool: Pools maps under boxes, see `roi_pooling.RoiPool`.
        heads: `RoiHead`s, one per stage of the geometry.
        mask_head: Computes masks from the features of the last head; None for no masks.
        geometry: Anchors, stages and limits.

    Attributes:
        evaluates_all_layers: Whether every layer that is trained also runs in evaluation, so that a
            trace needs no objects.
    """

    evaluates_all_layers: ClassVar = True

    def __init__(
        self,
        *,
        backbone: nn.Module,
        neck: nn.Module | None,
        rpn: RegionProposalHead,
        pool: nn.Module,
        heads: Sequence[RoiHead],
        mask_head: nn.Module | None,
        geometry: TwoStageGeometry,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = nn.Identity() if neck is None else neck
        self.rpn = rpn
        self.pool = pool
        self.heads = nn.ModuleList(heads)
        self.mask_head = nn.Identity() if mask_head is None else mask_head
        self.geometry = geometry

    @property
    def unordered(self) -> tuple[tuple[str, ...], ...]:
        """Groups of outputs with common rows, whose order depends on scores.

        A comparison of two runs must match the rows instead of comparing them in order.
        """
        rows = ("proposals", "logits", "deltas", "boxes")
        if self.geometry.masks is None:
            return (rows,)
        found = ("boxes", "scores", "labels", "masks")
        return (tuple(f"regions_{name}" for name in rows), found)

    def forward(
        self, images: Tensor, objects: Sequence[Objects] | None = None
    ) -> TwoStageOutputs | MaskOutputs | TwoStageSamples:
        """Return detections or, in training mode, samples for the loss.

        Args:
            images: `(n, 3, h, w)`; h and w are multiples of the coarsest stride.
            objects: Objects of every image; required in training mode, otherwise ignored.

        Raises:
            ConfigError: In training mode, the objects are missing or lack masks.
        """
        maps = self.neck(self.backbone(images))
        scores = self.rpn(maps)
        size = (images.shape[-2], images.shape[-1])
        if not self.training:
            return self._detected(maps, scores, size)
        if objects is None:
            raise ConfigError(
                "A two-stage detector in training mode must be given the images' objects. "
                "Received none. Call model(images, objects), or model.eval() first."
            )
        return self._sampled(maps, scores, size, objects)

    def _detected(
        self, maps: Sequence[Tensor], scores: AnchorScores, size: tuple[int, int]
    ) -> TwoStageOutputs | MaskOutputs:
        stages = self.geometry.stages
        proposals = propose(scores, size, self.geometry.testing)
        regions = proposals.boxes
        heads = [cast(RoiHead, head) for head in self.heads]
        for head, stage in zip(heads[:-1], stages[:-1], strict=True):
            deltas = self._by_image(head.deltas_of(self._features(head, maps, regions)), regions)
            regions = clip(decode(deltas[:, :, 0], regions, stage.weights), size)
        # All heads classify the regions of the last head.
        features = [self._features(head, maps, regions) for head in heads]
        pairs = zip(heads, features, strict=True)
        logits = [self._by_image(head.logits_of(one), regions) for head, one in pairs]
        deltas = self._by_image(heads[-1].deltas_of(features[-1]), regions)
        boxes = clip(decode(deltas, regions.unsqueeze(2), stages[-1].weights), size)
        found = TwoStageOutputs(
            scores.objectness,
            scores.offsets,
            proposals.boxes,
            proposals.counts,
            torch.stack(logits, dim=2),
            deltas,
            boxes,
        )
        final = self.geometry.masks
        return found if final is None else self._masked(maps, found, final)

    def _features(self, head: nn.Module, maps: Sequence[Tensor], regions: Tensor) -> Tensor:
        """Return the features that the body of `head` computes for regions `(n, count, 4)`."""
        features: Tensor = head.get_submodule("body")(self.pool(maps, with_image_of_rows(regions)))
        return features

    @staticmethod
    def _by_image(rows: Tensor, regions: Tensor) -> Tensor:
        return rows.reshape(*regions.shape[:2], *rows.shape[1:])

    def _masked(
        self, maps: Sequence[Tensor], found: TwoStageOutputs, final: MaskLimits
    ) -> MaskOutputs:
        boxes, scores, labels, counts = select(found, final)
        features = self._features(self.heads[-1], maps, boxes)
        logits = self._masks(features, labels.clamp(min=0).flatten())
        return MaskOutputs(found, boxes, scores, labels, counts, self._by_image(logits, boxes))

    def _masks(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the mask logits `(regions, side, side)` of the class of each region."""
        logits: Tensor = self.mask_head(features)
        side = logits.shape[-1]
        chosen = labels.reshape(-1, 1, 1, 1).expand(-1, 1, side, side)
        return logits.gather(1, chosen).squeeze(1)

    def _sampled(
        self,
        maps: Sequence[Tensor],
        scores: AnchorScores,
        size: tuple[int, int],
        objects: Sequence[Objects],
    ) -> TwoStageSamples:
        detached = scores._replace(
            objectness=scores.objectness.detach(), offsets=scores.offsets.detach()
        )
        stages = self.geometry.stages
        proposals = propose(detached, size, self.geometry.training)
        targets = _first_targets(proposals, objects, self.geometry)
        samples: list[StageSamples] = []
        for place, stage in enumerate(stages):
            outputs: RoiOutputs = self.heads[place](
                self.pool(maps, with_images([one.boxes for one in targets]))
            )
            samples.append(_stage_samples(outputs, targets, stage))
            if place == 0:
                masks = self._mask_samples(outputs, targets, objects)
            if place + 1 < len(stages):
                deltas = outputs.deltas[:, 0].detach()
                moved = _moved(targets, deltas, stage, size)
                pairs = zip(moved, objects, strict=True)
                targets = [label_rois(*pair, stages[place + 1].overlap) for pair in pairs]
        return TwoStageSamples(sample_anchors(scores, objects, size), tuple(samples), masks)

    def _mask_samples(
        self, outputs: RoiOutputs, targets: Sequence[RoiTargets], objects: Sequence[Objects]
    ) -> MaskSamples | None:
        if self.geometry.masks is None:
            return None
        labels = torch.cat([one.labels for one in targets])
        chosen = labels > 0
        logits = self._masks(outputs.features[chosen], labels[chosen] - 1)
        pairs = zip(targets, objects, strict=True)
        wanted = [_mask_targets(*pair, side=logits.shape[-1]) for pair in pairs]
        return MaskSamples(logits, torch.cat(wanted).to(logits))


def _first_targets(
    proposals: Proposals, objects: Sequence[Objects], geometry: TwoStageGeometry
) -> list[RoiTargets]:
    rows = zip(proposals.boxes, proposals.counts.tolist(), objects, strict=True)
    overlap = geometry.stages[0].overlap
    return [
        sample_rois(boxes[:count], one, overlap, geometry.sampled) for boxes, count, one in rows
    ]


def _moved(
    targets: Sequence[RoiTargets], deltas: Tensor, stage: HeadStage, size: tuple[int, int]
) -> list[Tensor]:
    """Return the regions of each image after a head refined them, without empty regions."""
    regions = torch.cat([one.boxes for one in targets])
    moved = clip(decode(deltas, regions, stage.weights), size)
    split = torch.split(moved, [len(one.boxes) for one in targets])
    usable = [((one[:, 2:] - one[:, :2]) >= LEAST_SIDE).all(dim=1) for one in split]
    return [one[kept] for one, kept in zip(split, usable, strict=True)]


def _stage_samples(
    outputs: RoiOutputs, targets: Sequence[RoiTargets], stage: HeadStage
) -> StageSamples:
    labels = torch.cat([one.labels for one in targets])
    chosen = torch.where(labels > 0)[0]
    own = labels[chosen] - 1 if outputs.deltas.shape[1] > 1 else torch.zeros_like(chosen)
    regions = torch.cat([one.boxes for one in targets])[chosen]
    places = torch.cat([one.wanted for one in targets])[chosen]
    wanted = encode(places, regions, stage.weights)
    return StageSamples(outputs.logits, labels, outputs.deltas[chosen, own], wanted)


def _mask_targets(targets: RoiTargets, objects: Objects, side: int) -> Tensor:
    """Return the masks of the objects within their regions, `(objects, side, side)` of 0 and 1."""
    if objects.masks is None:
        raise ConfigError(
            "A detector with masks must learn from masks. Received objects without masks. "
            "Give a COCO set with `segmentation` and set data.masks, or train a detector of "
            "boxes."
        )
    chosen = targets.labels > 0
    rois = torch.cat((targets.places[chosen, None].to(targets.boxes), targets.boxes[chosen]), dim=1)
    whole = objects.masks[:, None].to(targets.boxes)
    seen: Tensor = library_parts.roi_align(whole, rois, side, 1.0, 0, True)
    return (seen[:, 0] >= 0.5).to(targets.boxes)
