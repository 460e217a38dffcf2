import math

import pytest
import torch

from flyweight.tasks.losses.two_stage import (
    anchor_loss,
    balanced_l1,
    head_loss,
    mask_loss,
    two_stage_loss,
)
from flyweight.zoo.detectors.assignment import AnchorSamples
from flyweight.zoo.detectors.two_stage_models import CASCADE_320_GEOMETRY, FASTER_GEOMETRY
from flyweight.zoo.detectors.two_stage_outputs import MaskSamples, StageSamples, TwoStageSamples


def anchors(count=7, found=3):
    labels = torch.tensor([1.0] * found + [0.0] * (count - found))
    return AnchorSamples(torch.randn(count), labels, torch.randn(found, 4), torch.randn(found, 4))


def stage(count=9, found=4, classes=3):
    labels = torch.tensor([index % classes + 1 for index in range(found)] + [0] * (count - found))
    return StageSamples(
        torch.randn(count, classes + 1), labels, torch.randn(found, 4), torch.randn(found, 4)
    )


def smooth(error, sigma):
    """Paddle's `smooth_l1`: turns from square to line at one over sigma squared."""
    size = abs(error)
    border = 1 / sigma**2
    return 0.5 * (sigma * size) ** 2 if size < border else size - 0.5 * border


def test_anchors():
    said = anchors()
    entropy, deltas = anchor_loss(said)
    wanted = 0.0
    for logit, label in zip(said.logits.tolist(), said.labels.tolist(), strict=True):
        chance = 1 / (1 + math.exp(-logit))
        wanted -= math.log(chance if label else 1 - chance)
    assert float(entropy) == pytest.approx(wanted / 7, rel=1e-5)
    errors = (said.deltas - said.wanted).flatten().tolist()
    assert float(deltas) == pytest.approx(sum(smooth(e, 3.0) for e in errors) / 7, rel=1e-5)


def test_heads():
    said = stage()
    entropy, deltas = head_loss(said, balanced=False)
    rows = said.logits.exp() / said.logits.exp().sum(1, keepdim=True)
    chances = [float(row[label]) for row, label in zip(rows, said.labels.tolist(), strict=True)]
    assert float(entropy) == pytest.approx(-sum(map(math.log, chances)) / 9, rel=1e-5)
    errors = (said.deltas - said.wanted).flatten().tolist()
    assert float(deltas) == pytest.approx(sum(smooth(e, 1.0) for e in errors) / 9, rel=1e-5)
    balanced = head_loss(said, balanced=True)[1]
    assert float(balanced) == pytest.approx(
        float(balanced_l1(said.deltas - said.wanted).sum()) / 9, rel=1e-5
    )


def test_the_balanced_loss_has_the_paper_s_gradient():
    # Libra R-CNN, equation 6: alpha ln(b|x| + 1) below one, gamma beyond.
    errors = torch.linspace(-3, 3, 61, dtype=torch.float64, requires_grad=True)
    balanced_l1(errors).sum().backward()
    size = errors.detach().abs()
    wanted = torch.where(size < 1, 0.5 * torch.log((math.exp(3) - 1) * size + 1), 1.5)
    torch.testing.assert_close(errors.grad, wanted * errors.detach().sign())


def test_masks():
    said = MaskSamples(torch.randn(2, 3, 3), (torch.rand(2, 3, 3) > 0.5).float())
    chances = said.logits.sigmoid()
    wanted = -(said.wanted * chances.log() + (1 - said.wanted) * (1 - chances).log()).mean()
    torch.testing.assert_close(mask_loss(said), wanted)


def test_terms_and_shares():
    torch.manual_seed(0)
    stages = (stage(), stage(), stage())
    terms = two_stage_loss(TwoStageSamples(anchors(), stages, None), CASCADE_320_GEOMETRY)
    assert list(terms) == [
        *("loss", "objectness", "proposals", "classes_1", "boxes_1"),
        *("classes_2", "boxes_2", "classes_3", "boxes_3"),
    ]
    assert float(terms["loss"]) == pytest.approx(sum(map(float, list(terms.values())[1:])))
    for place, share in enumerate((1, 0.5, 0.25)):
        alone = head_loss(stages[place], balanced=True)
        assert float(terms[f"boxes_{place + 1}"]) == pytest.approx(float(alone[1]) * share)
    single = two_stage_loss(TwoStageSamples(anchors(), (stage(),), None), FASTER_GEOMETRY)
    assert list(single) == ["loss", "objectness", "proposals", "classes", "boxes"]


def test_pictures_without_anything_cost_nothing_but_background():
    masks = MaskSamples(torch.zeros(0, 14, 14, requires_grad=True), torch.zeros(0, 14, 14))
    samples = TwoStageSamples(anchors(5, 0), (stage(6, 0),), masks)
    terms = two_stage_loss(samples, FASTER_GEOMETRY)
    terms["masks"].backward()
    terms = {name: value.detach() for name, value in terms.items()}
    assert float(terms["proposals"]) == float(terms["boxes"]) == float(terms["masks"]) == 0
    assert float(terms["loss"]) == pytest.approx(
        float(terms["objectness"]) + float(terms["classes"])
    )
    assert two_stage_loss(TwoStageSamples(anchors(0, 0), (stage(6, 0),), None), FASTER_GEOMETRY)[
        "loss"
    ].isfinite()
