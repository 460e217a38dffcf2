import torch

from flyweight.zoo.detectors.two_stage_outputs import (
    MaskLimits,
    TwoStageOutputs,
    boxes_of,
    probabilities,
    select,
)


def outputs(boxes, logits, counts):
    count = boxes.shape[1]
    zeros = torch.zeros(1, count, 4)
    return TwoStageOutputs(
        objectness=torch.zeros(1, 3),
        offsets=torch.zeros(1, 3, 4),
        proposals=zeros,
        counts=torch.tensor([counts]),
        logits=logits,
        deltas=zeros[:, :, None],
        boxes=boxes,
    )


def test_scores_are_the_heads_mean_and_padding_has_none():
    torch.manual_seed(0)
    logits = torch.randn(1, 4, 3, 6)
    scores = probabilities(outputs(torch.rand(1, 4, 1, 4), logits, counts=3))
    torch.testing.assert_close(scores[0, :3], logits.softmax(-1)[0, :3].mean(1)[:, 1:])
    assert (scores[0, 3] == 0).all()


def test_one_box_for_all_classes_or_one_each():
    assert boxes_of(outputs(torch.rand(1, 4, 1, 4), torch.rand(1, 4, 1, 6), 4)).shape == (1, 4, 4)
    each = boxes_of(outputs(torch.rand(1, 4, 5, 4), torch.rand(1, 4, 1, 6), 4))
    assert each.shape == (1, 4, 5, 4)


def test_selection():
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60]])[None, :, None]
    logits = torch.tensor([[0.0, 4, 0], [0, 5, 0], [0, 0, 9]])[None, :, None]
    found, scores, labels, counts = select(
        outputs(boxes, logits, counts=3), MaskLimits(score_threshold=0.3, keep=5)
    )
    assert counts.tolist() == [2]
    assert labels.tolist() == [[1, 0, -1, -1, -1]]
    assert found[0, :2].tolist() == [[50, 50, 60, 60], [1, 0, 11, 10]]
    torch.testing.assert_close(scores[0, :2], logits.softmax(-1)[0, [2, 1], 0, [2, 1]])
