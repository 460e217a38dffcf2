from types import SimpleNamespace

import pytest
import torch
from tests import strategies
from torch import nn
from torch.utils._pytree import tree_leaves

import flyweight as fw
from flyweight.graph.dispatch import evaluating
from flyweight.pruning import prune
from flyweight.sensitivity.cut_runner import CutRunner
from flyweight.sensitivity.evaluator import Mean
from flyweight.sensitivity.scanned_cuts import BASELINE, Cuts


def near(outputs, batch):
    return outputs.flatten(1).mean(1)


def made():
    torch.manual_seed(0)
    model = strategies.build(["chain", "residual", "concat", "depthwise"])
    batch = (torch.randn(2, 3, 4, 4, dtype=torch.float64),)
    graph = fw.trace(model, batch)
    return model, batch, graph, Cuts((0.25, 0.5)).plans(graph)


def outputs_of(variants, batch, cuts):
    found = {}

    def take(cut, outputs):
        found[cut] = outputs.clone()

    variants.outputs(batch, cuts, take)
    return found


def test_outputs_are_those_of_every_pruned_network():
    model, batch, graph, plans = made()
    variants = CutRunner(graph, model, Mean(near), plans)
    for _ in range(2):  # the second batch goes by what the first one showed
        found = outputs_of(variants, batch, tuple(plans))
        assert next(iter(found)) == BASELINE
        assert set(found) == {BASELINE, *plans}
        with torch.no_grad():
            torch.testing.assert_close(found[BASELINE], model(*batch), rtol=1e-9, atol=1e-12)
            for cut, one in plans.items():
                expected = prune(model, one)(*batch)
                torch.testing.assert_close(found[cut], expected, rtol=1e-9, atol=1e-12)


class Several(nn.Module):
    """Returns what it also goes on with, before and after an operation that could write over it."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(3 if n == 0 else 6, 6, 1) for n in range(3))

    def forward(self, x):
        y = self.b(torch.relu(self.a(x)))
        z = self.c(torch.relu(y))
        return y, z, torch.relu(z + y), y + 1


class Dropped(nn.Module):
    """Adds to what a dropout returns, which in evaluation is the very tensor it was given."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 3, 1), nn.Conv2d(3, 2, 1)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        y = self.b(torch.relu(self.a(x)))
        return self.c(self.drop(y) + x)


def test_outputs_that_the_network_goes_on_with_are_those_of_the_cut():
    outputs_equal_those_of_pruned_networks(Several)


def test_what_is_needed_again_is_not_written_over():
    outputs_equal_those_of_pruned_networks(Dropped)


def outputs_equal_those_of_pruned_networks(kind):
    model = strategies.randomised(kind())
    batch = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    graph = fw.trace(model, (batch,))
    plans = Cuts((0.25, 0.5)).plans(graph)
    assert plans
    evaluator = SimpleNamespace(forward=lambda model, batch: model(batch))
    found = {}

    def take(cut, outputs):
        found[cut] = [output.clone() for output in tree_leaves(outputs)]

    CutRunner(graph, model, evaluator, plans).outputs(batch, tuple(plans), take)
    for cut, one in plans.items():
        with torch.no_grad():
            expected = tree_leaves(prune(model, one)(batch))
        for mine, theirs in zip(found[cut], expected, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


def test_only_the_cuts_that_are_asked_for_run():
    model, batch, graph, plans = made()
    variants = CutRunner(graph, model, Mean(near), plans)
    wanted = list(plans)[3:4]
    assert set(outputs_of(variants, batch, wanted)) == {BASELINE, *wanted}
    assert set(outputs_of(variants, batch, [])) == {BASELINE}


@pytest.mark.parametrize("training", [True, False])
def test_the_model_stays_as_it_was(training):
    model, batch, graph, plans = made()
    model.train(training)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    outputs_of(CutRunner(graph, model, Mean(near), plans), batch, tuple(plans))
    assert model.training is training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


class Viewing(nn.Module):
    """Writes the batch's size into an operation."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)
        self.c = nn.Linear(64, 2)

    def forward(self, x):
        return self.c(self.b(self.a(x).relu()).view(x.shape[0], -1))


class Reading(Viewing):
    """Computes with a Python number that it reads from what a cut changes."""

    def forward(self, x):
        y = self.b(self.a(x).relu())
        return self.c((y * y.mean().item()).flatten(1))


class Boxed:
    def __init__(self, scores):
        self.scores = scores


class Boxing(Viewing):
    """Returns its tensors inside of an object."""

    def forward(self, x):
        return Boxed(super().forward(x))


class Placed(Viewing):
    """Makes a tensor by itself that a part of the run needs."""

    def forward(self, x):
        y = self.b(self.a(x).relu()) + torch.arange(x.shape[-1], dtype=x.dtype)
        return self.c(y.flatten(1))


def test_a_run_that_keeps_tensors_has_the_operations_of_one_that_does_not():
    model, x = Placed().eval(), torch.randn(2, 3, 4, 4)
    graph = fw.trace(model, (x,))
    evaluator = SimpleNamespace(forward=lambda model, batch: model(batch))
    runner = CutRunner(graph, model, evaluator, Cuts((0.5,)).plans(graph))
    with evaluating(model):
        run, program = runner._recorded(x)
    assert run is not None
    assert program is not None, "each cut would run a whole network"


@pytest.mark.parametrize("kind", [Viewing, Reading, Boxing, Placed])
def test_batches_of_unequal_size_and_values_in_python(kind):
    torch.manual_seed(0)
    model = kind().double().eval()
    sizes = (3, 2, 3, 2, 1)
    data = [torch.randn(n, 3, 4, 4, dtype=torch.float64) for n in sizes]
    graph = fw.trace(model, (data[0],))
    plans = Cuts((0.25, 0.5)).plans(graph)
    assert plans

    def forward(model, batch):
        return model(batch)

    runner = CutRunner(graph, model, SimpleNamespace(forward=forward), plans)
    for batch in data:
        found = {}
        runner.outputs(
            batch,
            tuple(plans),
            lambda cut, outputs, found=found: found.update(
                {cut: getattr(outputs, "scores", outputs).clone()}
            ),
        )
        for cut, one in plans.items():
            with torch.no_grad():
                expected = prune(model, one, verify=False)(batch)
            expected = getattr(expected, "scores", expected)
            torch.testing.assert_close(found[cut], expected, rtol=1e-9, atol=1e-12)


class Keeping(Viewing):
    """Keeps what it made in an attribute, as position tables are kept."""

    def __init__(self):
        super().__init__()
        self.table = None

    def forward(self, x):
        if self.table is None:
            self.table = torch.ones(1, 8, 1, 1)
        return self.c(self.b(self.a(x) * self.table).flatten(1))


def test_nothing_made_in_inference_mode_stays_in_the_model():
    model, x = Keeping(), torch.randn(2, 3, 4, 4)
    graph = fw.trace(model, (x,))
    plans = Cuts((0.5,)).plans(graph)
    evaluator = SimpleNamespace(forward=lambda model, batch: model(batch))
    CutRunner(graph, model, evaluator, plans).outputs(x, tuple(plans), lambda *_: None)
    assert model.table is None
    model(x).sum().backward()
    assert model.a.weight.grad is not None
