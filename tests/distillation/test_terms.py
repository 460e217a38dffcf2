import pytest
import torch
from tests.distillation.networks import Classifier, pruned
from torch import nn

from flyweight.distillation.distillation_plan import plan_taps
from flyweight.distillation.seen_tensors import SeenTensor, see_network
from flyweight.distillation.strategies import Strategy, Term
from flyweight.distillation.terms import OUTPUT_LOSSES, Context, as_maps, compared, modules_for
from flyweight.distillation.truth import Truth
from flyweight.errors import ConfigError


def seen(layout, shape):
    return SeenTensor("op", "module", 0, "output", shape, layout, 0, 1)


def test_tokens_and_vectors_become_maps_of_one_column():
    tokens = torch.arange(24.0).view(1, 2, 3, 4)
    found = as_maps(tokens, seen("tokens", (1, 2, 3, 4)))
    assert found.shape == (1, 4, 6, 1)
    assert found[0, :, 1, 0].tolist() == tokens[0, 0, 1].tolist()
    vector = torch.arange(3.0)[None]
    assert as_maps(vector, seen("vectors", (1, 3))).flatten().tolist() == [0, 1, 2]
    maps = torch.zeros(1, 2, 3, 4, dtype=torch.bfloat16)
    assert as_maps(maps, seen("maps", (1, 2, 3, 4))).dtype == torch.float32


def test_modules_are_those_that_the_losses_need():
    dense = Classifier()
    images = torch.zeros(1, 3, 32, 32)
    plan = plan_taps(see_network(pruned(dense), images), see_network(dense, images))

    def names(*losses):
        terms = [Term(loss, "features") for loss in losses]
        return sorted(modules_for(plan.taps[0], terms))

    assert names("attention") == []
    assert names("pkd", "attention") == ["widen"]
    assert names("mgd") == ["generator", "widen"]
    assert names("fgd") == ["relation_of_student", "relation_of_teacher", "widen"]


def test_features_are_widened_and_resized_to_the_teachers():
    own = nn.ModuleDict({"widen": nn.Conv2d(2, 5, 1)})
    student, teacher = torch.randn(1, 2, 4, 4), torch.randn(1, 5, 8, 8)
    assert compared(student, teacher, own, "pkd").shape == teacher.shape
    assert compared(student, teacher, own, "attention").shape == (1, 2, 8, 8)


def test_what_a_loss_lacks_is_named():
    context = Context(Strategy("mine", ()), None, (8, 8), Truth())
    with pytest.raises(ConfigError, match="raw maps of YOLO"):
        OUTPUT_LOSSES["split_distill"](
            [torch.zeros(1, 6, 1, 1)], [torch.zeros(1, 6, 1, 1)], context
        )
