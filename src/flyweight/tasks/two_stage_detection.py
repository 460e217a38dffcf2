"""Object detection in two stages: the task for networks that propose regions and classify them."""

import torch
from torch import Tensor, nn

from flyweight.data.batch import Batch, BoxPrediction, BoxTarget
from flyweight.errors import ConfigError
from flyweight.tasks.decoding.boxes import clip_boxes
from flyweight.tasks.decoding.masks import paste_masks
from flyweight.tasks.detect import BoxDetection
from flyweight.tasks.losses.two_stage import two_stage_loss
from flyweight.zoo.detectors.assignment import Objects
from flyweight.zoo.detectors.two_stage_outputs import (
    MaskOutputs,
    TwoStageGeometry,
    TwoStageOutputs,
    TwoStageSamples,
    boxes_of,
    probabilities,
)

Outputs = TwoStageOutputs | MaskOutputs


class TwoStageDetection(BoxDetection[TwoStageGeometry]):
    """Detection for a `TwoStageDetector`; a `Task`.

    A detector with masks suppresses boxes inside the network, before it computes masks; of
    `suppression` only the score threshold and the number to keep apply to it.
    """

    def forward(self, model: nn.Module, batch: Batch) -> Outputs | TwoStageSamples:
        """Return the outputs of `model`; in training mode it also receives the objects."""
        if not model.training:
            found: Outputs = model(batch.images)
            return found
        samples: TwoStageSamples = model(batch.images, tuple(map(_objects, batch.targets)))
        return samples

    def loss(self, outputs: TwoStageSamples, batch: Batch) -> dict[str, Tensor]:
        """Return `loss` and its terms, see `two_stage_loss`."""
        self._require_classes(outputs.stages[0].logits)
        return two_stage_loss(outputs, self.geometry)

    def loss_at_rest(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return `loss` and its terms of a model in evaluation mode.

        Only the detector itself is in training mode, so that it draws samples; its layers are not.
        """
        model.training = True
        try:
            return super().loss_at_rest(model, batch)
        finally:
            model.training = False

    def decode(self, outputs: Outputs, batch: Batch) -> list[BoxPrediction]:
        """Return the boxes that suppression keeps, and masks, in pixels of the original image.

        The result is on the CPU.
        """
        if isinstance(outputs, TwoStageOutputs):
            self._require_classes(outputs.logits)
            return super().decode(outputs, batch)
        self._require_classes(outputs.regions.logits)
        with torch.no_grad():
            targets = enumerate(batch.targets)
            return [self._masked(outputs, index, target) for index, target in targets]

    def _masked(self, outputs: MaskOutputs, index: int, target: BoxTarget) -> BoxPrediction:
        labels, scores = outputs.labels[index], outputs.scores[index]
        strong = (labels >= 0) & (scores >= self.suppression.score_threshold)
        chosen = torch.where(strong)[0][: self.suppression.keep]
        factors = outputs.boxes.new_tensor(target.scale).repeat(2)
        boxes = clip_boxes(outputs.boxes[index, chosen] * factors, target.original_size).cpu()
        masks = outputs.masks[index, chosen].sigmoid().cpu()
        pasted = paste_masks(masks, boxes, target.original_size)
        return BoxPrediction(boxes, scores[chosen].cpu(), labels[chosen].cpu(), pasted)

    def _require_classes(self, logits: Tensor) -> None:
        if logits.shape[-1] != 1 + len(self.labels):
            raise ConfigError(
                f"A detector of {len(self.labels)} labels must have as many classes and the "
                f"background. Received: {logits.shape[-1] - 1} classes. Create the model "
                "with as many classes as there are labels."
            )

    def decoder(self) -> "TwoStageDecoder":
        """Return the module that computes boxes and scores from the raw outputs."""
        return TwoStageDecoder()

    def finisher(self) -> nn.Module | None:
        """Return the module that makes detections of a network that suppresses boxes itself."""
        return None if self.geometry.masks is None else MaskFinisher()


class TwoStageDecoder(nn.Module):
    """Boxes and scores as the last layer of an exported graph.

    Attributes:
        output_names: Names of the results.
        unordered: Outputs whose rows belong together and can come in any order.
    """

    output_names = ("boxes", "scores")
    unordered = (output_names,)

    def forward(self, outputs: Outputs) -> tuple[Tensor, Tensor]:
        """Return boxes in input pixels and scores.

        Returns:
            Boxes `(n, p, 4)`, or `(n, p, classes, 4)` if every class has its own box, and scores
            `(n, p, classes)`.
        """
        found = outputs.regions if isinstance(outputs, MaskOutputs) else outputs
        return boxes_of(found), probabilities(found)


class MaskFinisher(nn.Module):
    """Detections with masks as the last layer of an exported graph.

    Attributes:
        output_names: Names of the results.
    """

    output_names = ("boxes", "scores", "labels", "counts", "masks")

    def forward(self, outputs: MaskOutputs) -> tuple[Tensor, ...]:
        """Return boxes, scores, labels, counts, and probabilities of masks within the boxes."""
        return (
            outputs.boxes,
            outputs.scores,
            outputs.labels,
            outputs.counts,
            outputs.masks.sigmoid(),
        )


def _objects(target: BoxTarget) -> Objects:
    return Objects(target.boxes, target.labels, target.masks)
