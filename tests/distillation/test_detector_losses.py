import math

import pytest
import torch
from tests.distillation.conftest import wave

from flyweight.distillation import FgdWeights, crosskd, fgd
from flyweight.distillation.adaptors import GlobalContext
from flyweight.errors import ConfigError

BOXES = [
    torch.tensor([[3.0, 2.0, 17.0, 13.0], [0.0, 0.0, 9.0, 6.0]]),
    torch.tensor([[21.0, 9.0, 39.0, 31.0]]),
]
NOTHING = {"foreground": 0.0, "background": 0.0, "attention": 0.0, "relation": 0.0}
# FGD at commit c03a6cf: FeatureLoss, with the boxes above in images of 32 x 40.
PUBLISHED = {
    "foreground": 13.7801513671875,
    "background": 11.888978958129883,
    "attention": 4.192460536956787,
}


@pytest.mark.parametrize("term", PUBLISHED)
def test_the_terms_of_fgd_have_the_numbers_of_the_published_code(maps, term):
    weights = FgdWeights(**{**NOTHING, term: 1.0})
    found = fgd(*maps, BOXES, (32, 40), weights=weights)
    assert found.item() == pytest.approx(PUBLISHED[term], rel=1e-4)


def published_relations():
    relations = [GlobalContext(3), GlobalContext(3)]
    # The order of the parameters in the published code.
    order = [one.weigh.weight for one in relations[:1]] + [relations[0].weigh.bias]
    order += [relations[1].weigh.weight, relations[1].weigh.bias]
    for relation in relations:
        for layer in (0, 1, 3):
            order += [relation.add[layer].weight, relation.add[layer].bias]
    for index, parameter in enumerate(order):
        parameter.data = 0.5 * wave(tuple(parameter.shape), 0.31, 0.1 * index)
    return tuple(relations)


def test_fgd_as_a_whole_has_the_number_of_the_published_code(maps):
    relations = published_relations()
    found = fgd(*maps, BOXES, (32, 40), relations=relations)
    assert found.item() == pytest.approx(0.025194959715008736, rel=1e-4)
    only = FgdWeights(**{**NOTHING, "relation": 1.0})
    found = fgd(*maps, BOXES, (32, 40), relations=relations, weights=only)
    assert found.item() == pytest.approx(255.5712432861328, rel=1e-4)
    assert fgd(*maps, BOXES, (32, 40)).item() == pytest.approx(0.023917103186, rel=1e-4)


def test_fgd_accepts_images_without_objects(maps):
    found = fgd(*maps, [torch.zeros(0, 4), torch.zeros(0, 4)], (32, 40))
    assert math.isfinite(found.item())
    with pytest.raises(ConfigError, match="1 sets for 2 images"):
        fgd(*maps, BOXES[:1], (32, 40))


def test_crosskd_of_one_score_by_hand():
    crossed, teacher = torch.zeros(1, 1), torch.tensor([[math.log(3.0)]])
    # s(c) = 0.5, s(t) = 0.75: BCE = log 2, times the difference of 0.25.
    assert crosskd([crossed], [teacher]).item() == pytest.approx(math.log(2) * 0.25, rel=1e-5)
    found = crosskd([crossed], [teacher], beta=2.0)
    assert found.item() == pytest.approx(math.log(2) * 0.25**2, rel=1e-5)


def test_crosskd_of_a_yolo_map_by_hand():
    crossed = torch.zeros(1, 6, 1, 1)
    teacher = torch.tensor([0.0, 0.0, 1.0, -2.0, math.log(3.0), 0.0]).view(1, 6, 1, 1)
    # Centres log 2 each, sizes 1 and 2, times an objectness of 0.75; scores as above, of two.
    boxes = (2 * math.log(2) + 3) * 0.75
    scores = math.log(2) * 0.25 / 2
    found = crosskd([crossed], [teacher], num_classes=1)
    assert found.item() == pytest.approx(boxes + scores, rel=1e-5)


def test_only_the_crossed_predictions_learn():
    crossed, teacher = (torch.randn(1, 6, 2, 2, requires_grad=True) for _ in range(2))
    crosskd([crossed], [teacher], num_classes=1).backward()
    assert crossed.grad.abs().sum() > 0
    assert teacher.grad is None
