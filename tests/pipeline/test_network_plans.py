import json

import pytest

import flyweight as fw
from flyweight.checkpoint import read
from flyweight.config.cuts import RatioCut
from flyweight.config.reading import load_config
from flyweight.errors import PlanError
from flyweight.pipeline.network_plans import (
    build_model,
    plan_cut,
    prune_model,
    trace_model,
    weightless,
    with_cut,
)

SMALL = ("width=0.1", "input_size=64")
ONE, TWO = "yolo_block.0.0.0.conv.weight", "yolo_block.1.2.conv.weight"


@pytest.fixture(scope="module")
def config():
    return load_config("demo_digits", SMALL)[1]


@pytest.fixture(scope="module")
def preprocessing(config):
    return config.preprocessing


@pytest.fixture(scope="module")
def graph(config, preprocessing):
    return trace_model(weightless(config), preprocessing)


@pytest.fixture(scope="module")
def model(config):
    return build_model(config).eval()


def save(model, path):
    fw.save(model, path, preprocessing={"height": 64, "width": 64})
    return read(path)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (((), ()), "Pruning must have a cut"),
        ((("a",), ()), "equally many. Received 1 parameter and 0 ratios"),
        ((("a", "b"), (0.5,)), "equally many. Received 2 parameters and 1 ratio"),
        ((("a", "a"), (0.5, 0.5)), "named once. Received 'a' twice"),
        ((("a",), (0.5,), "l1norm"), "criterion must be a known one.*Nearest: 'l1_norm'"),
    ],
)
def test_what_cannot_be_meant(arguments, said):
    with pytest.raises(PlanError, match=said):
        RatioCut(*arguments)


def test_all_is_every_layer_that_can_be_cut(graph):
    made = plan_cut(graph, RatioCut(("all",), (0.5,)))
    assert set(made.groups) == set(graph.prunable())
    with pytest.raises(PlanError, match="all"):
        plan_cut(graph, RatioCut(("all", ONE), (0.5, 0.5)))


def test_fresh_weights_are_those_of_the_seed(config):
    first, second = build_model(config), build_model(config)
    assert first.get_parameter(ONE).equal(second.get_parameter(ONE))
    other = load_config("demo_digits", [*SMALL, "train.seed=1"])[1]
    assert not first.get_parameter(ONE).equal(build_model(other).get_parameter(ONE))


def test_a_plan_is_priced_without_weights_as_with_them(graph, model, preprocessing):
    cut = RatioCut((ONE, TWO), (0.5, 0.3))
    real = trace_model(model, preprocessing)
    assert plan_cut(graph, cut).cost(graph) == plan_cut(real, cut).cost(real)
    assert plan_cut(real, cut).criterion == "l1_norm"


def test_old_names(graph):
    old = RatioCut(("yolo_block.0.0.0.conv.weights", "conv3_1_sep_weights"), (0.5, 0.25))
    assert ONE in plan_cut(graph, old).groups


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_ratios_lie_between_0_and_1(graph, ratio):
    with pytest.raises(PlanError, match="strictly between 0 and 1"):
        plan_cut(graph, RatioCut((ONE,), (ratio,)))


def test_an_unknown_layer(graph):
    with pytest.raises(PlanError, match=f"Nearest: '{ONE}'"):
        plan_cut(graph, RatioCut(("yolo_block.0.0.0.conv.wieght",), (0.5,)))


def test_the_originals_rule_judges_each_layer_by_its_own_weights(model, preprocessing):
    small, made = prune_model(model, preprocessing, RatioCut((ONE,), (0.5,)))
    weight = model.get_parameter(ONE).detach()
    norms = weight.abs().sum(dim=(1, 2, 3))
    best = sorted(norms.argsort(descending=True)[:24].tolist())
    assert list(made.groups[ONE].keep) == best
    assert small.get_parameter(ONE).equal(weight[best])


def test_ratios_given_again(model, preprocessing, tmp_path):
    cut = RatioCut((ONE, TWO), (0.5, 0.3))
    small, _ = prune_model(model, preprocessing, cut)
    found = save(small, tmp_path / "small.safetensors")
    assert with_cut(small, found, preprocessing, cut) is small
    old = RatioCut((ONE.replace("weight", "weights"),), (0.5,))
    assert with_cut(small, found, preprocessing, old) is small
    with pytest.raises(PlanError, match=f"remove 19 of the 48 channels of '{ONE}', where 24 were"):
        with_cut(small, found, preprocessing, RatioCut((ONE,), (0.4,)))
    with pytest.raises(PlanError, match="where 0 were removed"):
        with_cut(small, found, preprocessing, RatioCut(("yolo_block.2.2.conv.weight",), (0.4,)))
    with pytest.raises(PlanError, match="Nearest"):
        with_cut(small, found, preprocessing, RatioCut(("yolo_block.0.0.0.konv.weight",), (0.5,)))


def test_ratios_given_again_after_a_second_cut_are_the_last_ones(model, preprocessing, tmp_path):
    first, _ = prune_model(model, preprocessing, RatioCut((ONE,), (0.5,)))
    second, _ = prune_model(first, preprocessing, RatioCut((ONE,), (0.25,)))
    found = save(second, tmp_path / "small.safetensors")
    assert with_cut(second, found, preprocessing, RatioCut((ONE,), (0.25,))) is second
    with pytest.raises(PlanError, match="remove 12 of the 24"):
        with_cut(second, found, preprocessing, RatioCut((ONE,), (0.5,)))


def test_ratios_given_again_know_of_rounding(model, preprocessing, tmp_path):
    cut = RatioCut((ONE,), (0.3,), round_to=8)
    small, _ = prune_model(model, preprocessing, cut)
    assert small.get_parameter(ONE).shape[0] == 32
    assert with_cut(small, save(small, tmp_path / "a.safetensors"), preprocessing, cut) is small


def test_ratios_for_a_checkpoint_that_is_not_pruned_cut_it_now(model, preprocessing, tmp_path):
    found = save(model, tmp_path / "dense.safetensors")
    small = with_cut(model, found, preprocessing, RatioCut((ONE,), (0.5,)))
    assert small.get_parameter(ONE).shape[0] == 24
    assert model.get_parameter(ONE).shape[0] == 48
    fw.save(small, tmp_path / "small.safetensors")
    assert json.loads(read(tmp_path / "small.safetensors").origin.plans[0])["groups"].keys() == {
        ONE
    }
