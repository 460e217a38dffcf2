import copy

import pytest
import torch
from torch import nn

import flyweight as fw
from flyweight.graph.example_inputs import Example
from flyweight.graph.kept_results import KeptResult, results_kept, without_results

IMAGE = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Table(nn.Module):
    """Multiplies by a table that is computed from a parameter at the first run."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.scale = kind, nn.Parameter(torch.rand(12))
        self.tables = {"dictionary": {}, "list": [], "attribute": None}[kind]

    def forward(self, x):
        if self.kind == "attribute":
            if self.tables is None:
                self.tables = self.scale.sigmoid().view(1, -1, 1, 1)
            return x * self.tables
        if self.kind == "list":
            if not self.tables:
                self.tables.append(self.scale.sigmoid().view(1, -1, 1, 1))
            return x * self.tables[0]
        key = tuple(x.shape[2:])
        if key not in self.tables:
            self.tables[key] = self.scale.sigmoid().view(1, -1, 1, 1)
        return x * self.tables[key]


def network(kind):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 12, 3), Table(kind), nn.Conv2d(12, 2, 1)).eval()


@torch.no_grad()
def used(model):
    model(IMAGE)
    return model


def example():
    return Example((IMAGE,))


def cut_of(model, graph):
    return fw.plan(graph, {"0.weight": 0.5})


@pytest.mark.parametrize("kind", ["dictionary", "list", "attribute"])
def test_a_network_that_ran_before_the_cut_is_cut_like_one_that_did_not(kind):
    fresh = network(kind)
    plan = cut_of(fresh, fw.trace(fresh, (IMAGE,)))
    expected = fw.prune(fresh, plan)
    found = fw.prune(used(fresh), plan)
    in_place = copy.deepcopy(fresh)
    fw.prune_(in_place, plan)
    with torch.no_grad():
        assert found(IMAGE).shape == (1, 2, 6, 6)
        assert torch.equal(found(IMAGE), expected(IMAGE))
        assert torch.equal(in_place(IMAGE), expected(IMAGE))
    # The dense network keeps its own.
    kept = results_kept(fresh, example)
    assert [place.attribute for place in kept] == ["tables"]
    assert kept[0].content(fresh) is not None
    assert not kept[0].content(without_results(fresh, kept))


@pytest.mark.parametrize("kind", ["dictionary", "list", "attribute"])
def test_a_network_that_ran_before_the_trace_can_be_cut_as_well(kind):
    model = used(network(kind))
    graph = fw.trace(model, (IMAGE,))
    small = fw.prune(model, cut_of(model, graph))
    fresh = network(kind)
    expected = fw.prune(fresh, cut_of(fresh, fw.trace(fresh, (IMAGE,))))
    with torch.no_grad():
        assert torch.equal(small(IMAGE), expected(IMAGE))


def test_a_table_of_several_sizes_is_a_result_and_data_of_the_user_are_none():
    model = network("dictionary")
    plan = cut_of(model, fw.trace(model, (IMAGE,)))
    used(model)
    with torch.no_grad():
        model(torch.rand(1, 3, 16, 16))
    model[1].offsets = {"of the user": torch.rand(1)}
    model[1].constant = torch.rand(1)
    assert results_kept(model, example) == (KeptResult("1", "tables"),)
    small = fw.prune(model, plan)
    assert small[1].offsets == model[1].offsets
    assert small[1].constant == model[1].constant
    assert small[1].tables == {}


def test_only_tensors_leave_a_container():
    model = network("dictionary")
    plan = cut_of(model, fw.trace(model, (IMAGE,)))
    used(model)[1].tables["name"] = "of the user"
    small = fw.prune(model, plan)
    assert small[1].tables == {"name": "of the user"}
    assert len(model[1].tables) == 2


def test_a_model_of_shapes_alone_is_not_run():
    model = network("dictionary")
    plan = cut_of(model, fw.trace(model, (IMAGE,)))
    used(model)
    small = fw.prune(model.to("meta"), plan)
    assert small[0].out_channels == 6


class Memory(nn.Module):
    """Counts on what an earlier run left: another run does not make the same again."""

    def __init__(self):
        super().__init__()
        self.conv, self.seen = nn.Conv2d(3, 4, 1), {}

    def forward(self, x):
        self.seen["mean"] = self.seen.get("mean", torch.zeros(())) * 0.5 + x.detach().mean()
        return self.conv(x) * self.seen["mean"]


def test_what_depends_on_earlier_runs_stays():
    model = Memory().eval()
    model(IMAGE)
    model(2 * IMAGE)
    assert results_kept(model, example, values=True) == ()
