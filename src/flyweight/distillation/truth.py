"""Truth of a batch: what some losses of distillation need besides images."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flyweight.data.batch import IGNORE, Batch, BoxTarget, ClassTarget, MapTarget


@dataclass(frozen=True)
class Truth:
    """Labels of a batch; each is None where it is unknown.

    Attributes:
        labels: Classes of the images, `(n,)` int64, for `dkd`.
        boxes: Objects of each image, `(objects, 4)` xyxy in input pixels, for `fgd`.
        mask: `(n, H, W)` bool, True where a pixel has a class, for losses on maps of a segmenter.
    """

    labels: Tensor | None = None
    boxes: Sequence[Tensor] | None = None
    mask: Tensor | None = None


def truth_of(batch: Batch) -> Truth:
    """Return the truth of a batch, by the kind of its targets."""
    targets, device = batch.targets, batch.images.device
    if all(isinstance(target, ClassTarget) for target in targets):
        return Truth(labels=torch.tensor([target.label for target in targets], device=device))
    if all(isinstance(target, BoxTarget) for target in targets):
        return Truth(boxes=[target.boxes for target in targets])
    if all(isinstance(target, MapTarget) for target in targets):
        return Truth(mask=torch.stack([target.labels != IGNORE for target in targets]).to(device))
    return Truth()
