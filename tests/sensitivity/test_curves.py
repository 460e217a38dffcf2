import json
import pickle

import pytest
import torch
from torch import nn

from flyweight.errors import DataError, PlanError
from flyweight.graph import trace
from flyweight.sensitivity import Point, Sensitivity, merge, read


def curves(baseline=0.8, **losses):
    """Return curves whose losses at 0.1, 0.2, ... are given."""
    return Sensitivity(
        "map_50",
        baseline,
        {
            layer: tuple(
                Point(round(0.1 * place, 6), baseline * (1 - loss))
                for place, loss in enumerate(values, 1)
            )
            for layer, values in losses.items()
        },
        made_from={"graph": "g", "weights": "w", "data": "d", "settings": "s"},
    )


@pytest.mark.parametrize(
    ("losses", "ratio"),
    [
        ([0.01, 0.02, 0.03], 0.3),  # all of them
        ([0.01, 0.03, 0.07], 0.25),  # half way between 0.03 and 0.07
        ([0.05, 0.06, 0.09], 0.1),  # just met
        ([-0.10, 0.05, 0.15], 0.2),
    ],
)
@pytest.mark.parametrize("rule", ["monotone", "original"])
def test_the_originals_rule(losses, ratio, rule):
    assert curves(a=losses).ratios(0.05, rule=rule) == {"a": pytest.approx(ratio)}


def test_a_dip_behind_the_threshold_is_read_two_ways():
    found = curves(a=[0.0, 0.2, 0.04, 0.1])
    assert found.ratios(0.05, rule="monotone") == {"a": pytest.approx(0.125)}
    share = 0.3 + 0.1 * (0.05 - 0.04) / (0.1 - 0.04)
    assert found.ratios(0.05, rule="original") == {"a": pytest.approx(share)}


def test_layers_that_cost_too_much_are_left_out_and_all_of_them_are_a_mistake():
    found = curves(a=[0.01, 0.02], b=[0.3, 0.4])
    assert list(found.ratios(0.05)) == ["a"]
    with pytest.raises(PlanError, match=r"Received 0.001, where the least .* is 0.01"):
        found.ratios(0.001)
    with pytest.raises(PlanError, match=r"between 0 and 1. Received 5"):
        found.ratios(5)


def test_a_point_with_an_interval_comes_back_from_a_file():
    found = Sensitivity("map", 0.8, {"a": (Point(0.1, 0.7, (0.65, 0.75)), Point(0.2, 0.6))})
    assert Sensitivity.from_json(found.to_json()) == found
    with pytest.raises(DataError, match="two or four numbers"):
        Sensitivity.from_json(found.to_json().replace(", 0.65", ""))


def network():
    return nn.Sequential(nn.Conv2d(3, 10, 1), nn.ReLU(), nn.Conv2d(10, 2, 1)).eval()


def test_a_plan_needs_a_graph_and_cuts_by_the_criterion_of_the_scan():
    model = network()
    graph = trace(model, (torch.rand(1, 3, 4, 4),))
    found = curves(**{"0.weight": [0.0, 0.04, 0.06]})
    with pytest.raises(PlanError, match="must have a graph"):
        found.plan(max_drop=0.05)
    made = found.plan(max_drop=0.05, graph=graph)
    assert len(made.groups["0.weight"].keep) == 8  # 0.25 of 10 channels, to the even number
    assert made.criterion == "l1_norm"
    measured = Sensitivity("m", 1.0, found.curves, criterion="taylor", graph=graph)
    with pytest.raises(PlanError, match="has to be measured again"):
        measured.plan(max_drop=0.5)


def test_text_and_back(tmp_path):
    found = curves(a=[0.1, 0.2], b=[0.3])
    assert Sensitivity.from_json(found.to_json()) == found
    found.save(tmp_path / "sens.json")
    assert read(tmp_path / "sens.json") == found
    assert json.loads((tmp_path / "sens.json").read_text())["curves"]["b"] == [
        [0.1, pytest.approx(0.56)]
    ]


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"format": 2}', '{"format": 1, "metric": "m", "baseline": "x"}']
)
def test_other_texts_are_one_letter(text):
    with pytest.raises(DataError, match="must be what flyweight wrote") as error:
        Sensitivity.from_json(text)
    assert "\n" not in str(error.value)


def test_the_originals_files_are_read(tmp_path):
    path = tmp_path / "sensitivities.data"
    path.write_bytes(pickle.dumps({"conv1_weights": {0.1: 0.02, 0.2: 0.08}}))
    found = read(path)
    assert found.losses("conv1_weights") == pytest.approx({0.1: 0.02, 0.2: 0.08})
    assert found.local
    assert found.ratios(0.05) == {"conv1_weights": pytest.approx(0.15)}
    with pytest.raises(DataError, match="must be readable"):
        read(tmp_path / "missing")


def test_scans_of_the_same_are_merged():
    one, two = curves(a=[0.1, 0.2]), curves(a=[0.5, 0.5, 0.3], b=[0.4])
    both = merge(one, two)
    assert both.losses("a") == pytest.approx({0.1: 0.1, 0.2: 0.2, 0.3: 0.3})
    assert both.losses("b") == pytest.approx({0.1: 0.4})
    with pytest.raises(DataError, match=r"same weights. Received 'w' and 'v'"):
        merge(one, Sensitivity("map_50", 0.8, {}, made_from={"weights": "v"}))
    with pytest.raises(DataError, match="same metric before any cut"):
        merge(one, curves(baseline=0.7, a=[0.1]))
