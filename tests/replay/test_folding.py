import torch
from tests import strategies
from torch import nn

from flyweight.graph.dispatch import evaluating
from flyweight.replay.folding import fold
from flyweight.replay.tape import needed_by, record, rerun


def run_folded(model, x):
    with evaluating(model):
        tape = record(model, lambda: model(x))
        folded = fold(tape)
        tape = record(model, lambda: model(x), needed_by(folded.steps))
        values = {**tape.values, **folded.values}
        return tape, folded, tape.outputs_with(rerun(folded.steps, values, {}))


def test_a_normalisation_goes_into_the_convolution_before_it():
    model = nn.Sequential(
        *(nn.Conv2d(3, 4, 3, stride=2, bias=False), nn.BatchNorm2d(4), nn.ReLU()),
        *(nn.Conv2d(4, 5, 1), nn.BatchNorm2d(5, affine=False)),
    )
    strategies.randomised(model)
    x = torch.randn(2, 3, 9, 9, dtype=torch.float64)
    tape, folded, found = run_folded(model, x)
    assert len(tape.steps) - len(folded.steps) == 2
    assert set(folded.weights) == {tape.stored["0.weight"], tape.stored["3.weight"]}
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
    tape, folded, found = run_folded(model, torch.randn(2, 3, 4, 4, dtype=torch.float64))
    assert len(folded.steps) == len(tape.steps)
    assert folded.weights == {}
    assert found.shape == (2, 3, 4, 4)


def test_statistics_of_the_batch_are_not_folded():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)).eval()
    tape, folded, _ = run_folded(model, torch.randn(2, 3, 4, 4))
    assert len(folded.steps) == len(tape.steps)
