import pytest
import torch
from tests import strategies
from torch import nn

from flyweight.graph.dispatch import evaluating
from flyweight.replay.folding import Normalisation, fold
from flyweight.replay.rerun import needed_by, record, rerun


def run_folded(model, x):
    with evaluating(model):
        run = record(model, lambda: model(x))
        folded = fold(run)
        run = record(model, lambda: model(x), needed_by(folded.steps))
        values = {**run.values, **folded.values}
        return run, folded, run.outputs_with(rerun(folded.steps, values, {}))


def test_a_normalisation_goes_into_the_convolution_before_it():
    model = nn.Sequential(
        *(nn.Conv2d(3, 4, 3, stride=2, bias=False), nn.BatchNorm2d(4), nn.ReLU()),
        *(nn.Conv2d(4, 5, 1), nn.BatchNorm2d(5, affine=False)),
    )
    strategies.randomised(model)
    x = torch.randn(2, 3, 9, 9, dtype=torch.float64)
    run, folded, found = run_folded(model, x)
    assert len(run.calls) - len(folded.steps) == 2
    assert set(folded.weights) == {run.stored["0.weight"], run.stored["3.weight"]}
    torch.testing.assert_close(found, model(x), rtol=1e-12, atol=1e-12)


class Both(nn.Module):
    """Reads a convolution before and after its normalisation, and uses another one twice."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.shared, self.second = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        y = self.first(x)
        y = y + self.norm(y)
        return self.shared(self.second(self.shared(y)))


def test_what_is_read_elsewhere_stays():
    model = strategies.randomised(Both())
    run, folded, found = run_folded(model, torch.randn(2, 3, 4, 4, dtype=torch.float64))
    assert len(folded.steps) == len(run.calls)
    assert folded.weights == {}
    assert found.shape == (2, 3, 4, 4)


def test_statistics_of_the_batch_are_not_folded():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)).eval()
    run, folded, _ = run_folded(model, torch.randn(2, 3, 4, 4))
    assert len(folded.steps) == len(run.calls)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("biased", [True, False])
def test_the_arithmetic_holds_for_any_layer(affine, biased):
    norm = strategies.randomised(nn.BatchNorm1d(4, affine=affine)).double().eval()
    layer = nn.Linear(3, 4, bias=biased).double()
    found = Normalisation(norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
    weight, bias = found.folded(layer.weight, layer.bias)
    x = torch.randn(5, 3, dtype=torch.float64)
    torch.testing.assert_close(
        nn.functional.linear(x, weight, bias), norm(layer(x)), rtol=1e-12, atol=1e-12
    )
