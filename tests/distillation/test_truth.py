import torch

from flyweight.data.batch import IGNORE, Batch, BoxTarget, ClassTarget, MapTarget
from flyweight.distillation.truth import Truth, truth_of

COMMON = {"image_id": 0, "original_size": (4, 4)}


def test_the_truth_is_of_the_kind_of_the_targets():
    images = torch.zeros(1, 3, 4, 4)
    classes = truth_of(Batch(images, (ClassTarget(label=3, **COMMON),)))
    assert classes.labels.tolist() == [3]
    labels = torch.tensor([[0, IGNORE], [1, 2]], dtype=torch.uint8)
    maps = truth_of(Batch(images, (MapTarget(labels=labels, **COMMON),)))
    assert maps.mask.tolist() == [[[True, False], [True, True]]]
    nothing = torch.zeros(1)
    box = BoxTarget(
        boxes=torch.ones(1, 4),
        labels=nothing.long(),
        weights=nothing,
        difficult=nothing.bool(),
        crowd=nothing.bool(),
        **COMMON,
    )
    assert truth_of(Batch(images, (box,))).boxes[0].tolist() == [[1, 1, 1, 1]]
    assert truth_of(Batch(images, (object(),))) == Truth()
