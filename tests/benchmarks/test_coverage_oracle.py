"""The checks of the coverage benchmark find every kind of difference, and no other."""

import importlib
from collections import deque
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def oracle(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("coverage_oracle")


@pytest.fixture
def case(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("coverage_case")


@dataclass(slots=True)
class Slotted:
    map: torch.Tensor
    name: str


def test_every_container_is_opened(oracle: ModuleType) -> None:
    one, two = torch.ones(2), torch.zeros(3)
    result = {0: deque([one, Slotted(two, "x")]), "b": (2.5, [True, None]), "c": np.ones(2)}
    found = list(oracle.values_in(result))
    assert [tuple(value.shape) for value in found] == [(2,), (3,), (), (), (2,)]


@pytest.mark.parametrize(
    ("wanted", "found", "error"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, -4.0], [1.0, -3.0], 0.25),
        ([1.0, float("inf")], [1.0, float("inf")], 0.0),
        ([1.0, float("inf")], [1.0, float("-inf")], float("inf")),
        ([1.0, float("nan")], [1.0, 2.0], float("inf")),
        ([1, 2], [1, 3], float("inf")),
        ([True, False], [True, False], 0.0),
        ([1.0, 2.0], [1.0], float("inf")),
    ],
)
def test_differences(oracle: ModuleType, wanted: list, found: list, error: float) -> None:
    assert oracle.difference([torch.tensor(wanted)], [torch.tensor(found)]) == error


def test_fewer_results_are_a_difference(oracle: ModuleType) -> None:
    assert oracle.difference([torch.ones(1)] * 2, [torch.ones(1)]) == float("inf")


def test_random_operations_rest(oracle: ModuleType) -> None:
    class Noisy(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            dropped = nn.functional.dropout(x, 0.5, training=True)
            drawn = x.new_empty(3).bernoulli_(0.5) + torch.rand(3) + torch.randn(3)
            return dropped, drawn, torch.randperm(4)

    first, second = (list(oracle.call(Noisy(), ((torch.ones(n),), {}))) for n in (2, 5))
    assert torch.equal(first[1], second[1])
    assert torch.equal(first[1], torch.full((3,), 2.0))
    assert torch.equal(second[2], torch.arange(4))
    assert len(second[0].unique()) == 1


def test_what_any_tool_removed_is_zeroed(oracle: ModuleType) -> None:
    torch.manual_seed(0)
    dense = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 6, 2), nn.LayerNorm(7)
    )
    small = nn.Sequential(
        nn.Conv2d(3, 2, 3), nn.ReLU(), nn.ConvTranspose2d(2, 6, 2), nn.LayerNorm(7)
    )
    kept = [3, 1]
    small[0].weight.data, small[0].bias.data = dense[0].weight[kept], dense[0].bias[kept]
    small[2].weight.data, small[2].bias.data = dense[2].weight[kept], dense[2].bias
    image = torch.randn(1, 3, 8, 8)
    assert oracle.zero_by_values(dense, small) == []
    assert not dense[2].weight[[0, 2]].any()
    assert dense[0].weight.all()
    with torch.no_grad():
        assert torch.allclose(dense(image), small(image), atol=1e-6)
    small[3] = nn.LayerNorm(5)
    assert oracle.zero_by_values(dense, small) == ["3"]


def test_weights_that_are_computed_keep_their_norm(oracle: ModuleType) -> None:
    for wrap in (nn.utils.parametrizations.weight_norm, nn.utils.weight_norm):
        with pytest.warns(FutureWarning) if wrap is nn.utils.weight_norm else nullcontext():
            layer = wrap(nn.Conv2d(4, 2, 1, groups=2))
        x = torch.randn(1, 4, 3, 3)
        masked = x.clone()
        masked[:, [0, 2]] = 0
        wanted = layer(masked)
        zeroed = oracle.Zeroed(layer)
        name = "weight_v" if hasattr(layer, "weight_v") else "parametrizations.weight.original1"
        zeroed.zero(name, 1, torch.tensor([0]))
        assert torch.equal(layer(x), wanted)
        zeroed.release()
        assert not torch.equal(layer(x), wanted)


def test_the_second_call_differs_from_the_example(case: ModuleType) -> None:
    plain = case.Case("zoo", "net", nn.Identity, (2, 3, 8, 8))
    assert list(plain.second_calls(8)) == [(3, 40), (3, 16), (3, 8), (2, 40), (2, 16)]
    assert list(plain.second_calls(96))[:3] == [(3, 64), (3, 128), (3, 96)]
    args, kwargs = plain.call(3, 16)
    assert args[0].shape == (3, 3, 16, 16)
    assert kwargs == {}
    clip = case.Case("zoo", "net", nn.Identity, (1, 3, 4, 10, 8))
    assert clip.call(2, 16)[0][0].shape == (2, 3, 4, 18, 16)
    detector = case.Case("zoo", "net", nn.Identity, (3, 8, 8))
    assert [tuple(image.shape) for image in detector.call(2, 9)[0][0]] == [(3, 9, 9)] * 2


def test_the_layers_that_make_the_outputs_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    finder = importlib.import_module("coverage_output_layers")

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
            self.norm = nn.LayerNorm(4)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            y = self.a(x)
            z = self.norm(y + self.b(y.relu()))
            return {"features": z[:, :2], "scores": self.c(z).softmax(1)}

    net = Net()
    found = finder.output_layers(net, ((torch.ones(1, 4),), {}))
    assert {id(layer) for layer in found} == {id(net.a), id(net.b), id(net.c)}
