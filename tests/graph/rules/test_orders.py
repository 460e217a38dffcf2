"""Index tensors that the code counts out."""

import numpy as np
import pytest
import torch
from tests.graph.rules.conftest import Around, cut, reasons
from torch import nn

from flyweight.graph import trace
from flyweight.graph.identity import Flow
from flyweight.graph.rules import orders
from flyweight.graph.step import Ledger, Step


def positions(x):
    return torch.arange(x.shape[1])


COUNTED = {
    "index": lambda m, x: x[:, positions(x)],
    "index_select": lambda m, x: x.index_select(1, positions(x)),
    "backwards": lambda m, x: x[:, torch.arange(x.shape[1] - 1, -1, -1)],
    "flipped": lambda m, x: x[:, positions(x).flip(0)],
    "shuffled": lambda m, x: x[:, positions(x).view(2, -1).t().flatten()],
    "with the batch": lambda m, x: x[torch.arange(x.shape[0])[:, None], positions(x)[None]],
    "gathered": lambda m, x: x.gather(1, positions(x).flip(0).view(1, -1, 1, 1).expand_as(x)),
    "of another type": lambda m, x: x[:, positions(x).to(torch.int32).long().clone()],
    "two dimensions": lambda m, x: x[:, positions(x).view(-1, 2)].flatten(1, 2),
}


@pytest.mark.parametrize("kind", COUNTED)
def test_channels_in_an_order_that_the_code_counts_out(kind):
    cut(Around(COUNTED[kind]))


def test_the_first_half_is_a_part_of_its_own():
    def halves(model, x):
        return torch.cat([x[:, positions(x)[: model.half]], x[:, positions(x)[model.half :]]], 1)

    _, made, _ = cut(Around(halves, half=6))
    assert {"second.weight", "second.weight[6:]"} <= set(made.groups)


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: x[:, positions(x) // 2],
        lambda m, x: x[:, (positions(x) * 3) % 16],
        lambda m, x: x[:, torch.stack([positions(x), positions(x).flip(0)])[1]],
        lambda m, x: x[:, [1, 0, *range(2, 16)]],
        lambda m, x: x[:, torch.arange(1, 17) % 16],
    ],
)
def test_positions_that_are_computed_freeze(function):
    graph = trace(Around(function), (torch.rand(1, 3, 8, 8),))
    assert reasons(graph) == {"is looked up by index: index in the model's forward"}


def test_numbers_made_of_positions_have_a_fixed_size():
    def embedded(model, x):
        return x + (positions(x) / x.shape[1]).view(1, -1, 1, 1)

    graph = trace(Around(embedded), (torch.rand(1, 3, 8, 8),))
    assert graph.groups["second.weight"].reason is not None


def test_positions_of_rows_do_not_touch_channels():
    cut(Around(lambda m, x: x[:, :, torch.arange(7, -1, -1)][:, :, :, torch.arange(8)]))
    cut(Around(lambda m, x: x + torch.arange(8).view(8, 1) * torch.arange(8)))


def test_what_is_counted_is_a_permutation_of_identities():
    ledger = Ledger()
    step = Step("arange", "", {"start": 3, "end": -1, "step": -1}, ((4,),), ledger)
    (flow,) = orders.with_positions(step, (Flow((4,)),))
    assert flow.counted
    assert ledger.identities.positions_of(flow.fields[0].ids).tolist() == [3, 2, 1, 0]
    for arguments in ({"start": 1, "end": 5}, {"start": 0, "end": 8, "step": 2}):
        step = Step("arange", "", arguments, ((4,),), ledger)
        assert orders.with_positions(step, (Flow((4,)),))[0].fields == ()
    assert ledger.identities.positions_of(np.array([99])) is None


def test_a_stored_order_that_is_computed_with_freezes():
    model = Around(lambda m, x: x[:, m.order] + m.order.view(1, -1, 1, 1), order=torch.randperm(16))
    groups = trace(model, (torch.rand(1, 3, 8, 8),)).groups
    assert groups["second.weight"].reason.startswith("holds an order that is also computed with")


def test_a_stored_order_in_a_linear_network():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(6, 16), nn.Linear(16, 3)
            self.register_buffer("order", torch.randperm(16))

        def forward(self, x):
            return self.last(self.first(x).relu()[:, self.order])

    cut(Mixed(), (torch.randn(5, 6).double(),), least=0.4)
