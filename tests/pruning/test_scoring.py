"""Whatever a criterion returns becomes scores, or is refused in one line."""

import numpy as np
import pytest
import torch

from flyweight.errors import PlanError
from flyweight.pruning import CRITERIA, plan
from flyweight.pruning.scoring import criterion_name, find_criterion, scores_of

ORDER = [3.0, 1.0, 2.0, 0.5]


@pytest.fixture
def body(graph):
    return graph.groups["body.weight"]


@pytest.mark.parametrize(
    "found",
    [
        ORDER,
        tuple(ORDER),
        np.array(ORDER, dtype=np.float32),
        torch.tensor(ORDER, requires_grad=True),
        torch.tensor(ORDER, dtype=torch.bfloat16),
        [torch.tensor(value, requires_grad=True) for value in ORDER],
    ],
    ids=["list", "tuple", "array", "gradient", "bfloat16", "tensors"],
)
def test_anything_that_holds_numbers_is_accepted(graph, body, found):
    scores = scores_of(lambda group, tensors: found, body, graph)
    assert scores.dtype == np.float64
    assert scores.tolist() == ORDER


def test_a_plain_formula_of_weights_is_a_criterion(graph):
    def largest(group, tensors):
        return tensors["body.weight"].abs().amax((1, 2, 3))  # has a gradient

    weight = graph.tensors["body.weight"].detach().abs().amax((1, 2, 3))
    kept = plan(graph, {"body.weight": 0.5}, largest).keep["body.weight"]
    assert kept == tuple(sorted(weight.argsort()[2:].tolist()))


@pytest.mark.parametrize("found", [["a"] * 4, {"x": 1}, [[1], [2, 3], [4], [5]], object()])
def test_what_holds_no_numbers_is_refused(graph, body, found):
    with pytest.raises(PlanError, match="one finite score per channel") as caught:
        scores_of(lambda group, tensors: found, body, graph)
    assert "\n" not in str(caught.value)
    assert "group 'body.weight' of 4 channels" in str(caught.value)


def test_the_name_of_a_criterion_that_needs_data_says_how_to_make_it(graph):
    with pytest.raises(PlanError, match=r"Make it with pruning.taylor\(model, batches, loss\)"):
        plan(graph, 0.5, "taylor")


def test_a_plan_knows_its_criterion_by_name():
    class Nameless:
        def __call__(self, group, tensors):
            return [0.0] * group.size

    assert criterion_name("l1_norm") == "l1_norm"
    assert criterion_name(CRITERIA["bn_scale"]) == "bn_scale"
    assert criterion_name(Nameless()) == "callable"
    assert find_criterion("random") is CRITERIA["random"]
