"""A plan is a value: JSON, price, slices; and the originals' exact figures."""

import json

import pytest
import torch
from tests.originals import HEAD, RECIPES

from flyweight import zoo
from flyweight.errors import PlanError
from flyweight.graph import trace
from flyweight.graph.groups import Member
from flyweight.pruning import GroupPlan, PruningPlan, plan, prune
from flyweight.zoo.sources.old_names import old_names

# Section 5 of the cost accounting, in the order of HEAD.
KEPT = {
    "sensity": [
        *(461, 819, 410, 819, 410, 922),
        *(205, 358, 179, 358, 205, 461),
        *(90, 154, 77, 154, 77, 179),
    ],
    "r578": [256, 512, 256, 512, 256, 512, 77, 154, 77, 154, 77, 154, 26, 51, 26, 51, 26, 51],
    "75/87.5": [128, 256, 128, 256, 128, 256, 64, 128, 64, 128, 64, 128, 16, 32, 16, 32, 16, 32],
}
# Per recipe and number of classes: GMACs at 320, 416 and 608, values, MACs at an unknown size.
PRUNED = {
    ("sensity", 80): ((4.0349, 6.8190, 14.5660), 17_548_482, 17_477_053),
    ("r578", 80): ((1.8637, 3.1497, 6.7280), 8_016_992, 7_958_003),
    ("sensity", 20): ((3.9336, 6.6477, 14.2001), 17_266_782, 17_195_893),
    ("r578", 20): ((1.8287, 3.0905, 6.6017), 7_887_392, 7_828_943),
}
SIDES = (320, 416, 608)


def detector(classes):
    with torch.device("meta"):
        return zoo.create("yolov3_mobilenet_v1", num_classes=classes)


def traced(model, side):
    return trace(model, (torch.zeros(1, 3, side, side, device="meta"),))


@pytest.fixture(scope="module")
def graphs():
    return {(c, side): traced(detector(c), side) for c in (80, 20) for side in SIDES}


def recipe(graph, name):
    return plan(graph, dict(zip(HEAD, RECIPES[name], strict=True)), criterion="first")


@pytest.mark.parametrize("name", RECIPES)
def test_kept_channels_are_the_originals(graphs, name):
    made = recipe(graphs[80, 608], name)
    assert {g: len(keep) for g, keep in made.keep.items()} == {
        old.removesuffix("s"): count for old, count in zip(HEAD, KEPT[name], strict=True)
    }


@pytest.mark.parametrize(("name", "classes"), PRUNED)
def test_pruned_costs_are_the_originals(graphs, name, classes):
    giga, values, unknown = PRUNED[name, classes]
    made = recipe(graphs[classes, 608], name)
    prices = [made.cost(graphs[classes, side]) for side in SIDES]
    assert tuple(round(price.macs / 1e9, 4) for price in prices) == giga
    assert {price.values for price in prices} == {values}
    assert made.cost(graphs[classes, 608], "paddle").macs == unknown


@pytest.mark.parametrize(
    ("name", "classes", "convention", "percent"),
    [
        ("sensity", 80, "paddle", 28.7571),
        ("r578", 80, "paddle", 67.5603),
        ("sensity", 20, "real", 34.5455),
        ("r578", 20, "real", 69.5702),
    ],
)
def test_printed_percentages_are_the_originals(graphs, name, classes, convention, percent):
    graph = graphs[classes, 608]
    before, after = graph.cost(convention).macs, recipe(graph, name).cost(graph, convention).macs
    assert round(100 * (1 - after / before), 4) == percent


def test_binary_giga_macs_are_the_originals(graphs):
    def giga(name, classes):
        graph = graphs[classes, 608]
        return round(recipe(graph, name).cost(graph).macs / 2**30, 4)

    assert giga("sensity", 20) == 13.2249
    assert giga("r578", 20) == 6.1483
    assert giga("sensity", 80) == 13.5656
    assert giga("r578", 80) == 6.2659


@pytest.mark.parametrize("name", ["sensity", "r578"])
def test_the_really_pruned_detector_costs_what_was_predicted(graphs, name):
    graph = graphs[80, 320]
    made = recipe(graph, name)
    small = traced(prune(detector(80), made), 320)
    for convention in ("real", "paddle"):
        assert small.cost(convention) == made.cost(graph, convention)


def test_the_backbone_answers_to_its_old_names(graphs):
    graph = graphs[80, 320]
    aliases = old_names(graph.tensors)
    made = plan(graph, {"conv5_6_sep_weights": 0.5}, "first", aliases=aliases)
    (group,) = made.groups
    assert group == "backbone.conv5_6.sep.conv.weight"


def test_json_gives_the_plan_back(graph):
    made = plan(graph, 0.5)
    text = made.to_json()
    again = PruningPlan.from_json(text)
    assert again == made
    assert again.to_json() == text
    assert json.loads(text)["format"] == 1
    assert again.inputs == (((1, 3, 6, 6), "float32"),)


def test_an_edited_plan_is_read_as_edited(graph):
    data = json.loads(plan(graph, {"body.weight": 0.5}).to_json())
    data["groups"]["body.weight"]["keep"] = [1]
    assert PruningPlan.from_json(json.dumps(data)).keep == {"body.weight": (1,)}


def edited(graph, *path, value):
    data = json.loads(plan(graph, {"body.weight": 0.5}).to_json())
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return json.dumps(data)


BODY = ("groups", "body.weight")


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("format",), 2, "must have format 1 here. Received format 2"),
        (("format",), "1", "must have format 1 here. Received format '1'"),
        (("groups",), [], "must be the JSON that PruningPlan.to_json writes"),
        ((*BODY, "keep"), [], "must keep a channel"),
        ((*BODY, "keep"), [2, 1], "must be rising, unique and in 0..3. Received [2, 1]"),
        ((*BODY, "keep"), [1, 1], "must be rising, unique and in 0..3. Received [1, 1]"),
        ((*BODY, "keep"), [-1, 2], "must be rising, unique and in 0..3. Received [-1, 2]"),
        ((*BODY, "keep"), [0, 4], "must be rising, unique and in 0..3. Received [0, 4]"),
        ((*BODY, "keep"), [0.5], "0.5 must be a whole number"),
        ((*BODY, "keep"), [True], "True must be a whole number"),
        ((*BODY, "channels"), "4", "'4' must be a whole number"),
        ((*BODY, "channels"), -1, "do not fit -1 channels"),
        ((*BODY, "touches", 0, 1), -1, "do not fit 4 channels"),
        ((*BODY, "touches", 0, 2), "eats", "not 'eats'"),
        ((*BODY, "touches", 0, 3), [[0], [1]], "do not fit 4 channels"),
        ((*BODY, "touches", 0, 3), [-1, 1, 1, 1], "do not fit 4 channels"),
        ((*BODY, "touches", 0, 3), [0, 10**30, 1, 1], "beyond the end of any tensor"),
        ((*BODY, "touches", 0, 3), [0, 1, 0, 1], "do not fit 4 channels"),
        ((*BODY, "touches", 0, 1), 10**30, "do not fit 4 channels"),
        ((*BODY, "keep"), [10**50], "a whole number of 51 digits"),
        ((*BODY, "touches", 0, 3), [0, 1], "expected 4, got 2"),
        ((*BODY, "touches", 0), ["body.weight"], "expected 4, got 1"),
    ],
)
def test_a_damaged_plan_is_one_clear_line(graph, path, value, words):
    with pytest.raises(PlanError) as caught:
        PruningPlan.from_json(edited(graph, *path, value=value))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", "{}", '{"format": 1}', "[" * 100_000])
def test_text_that_is_no_plan(text):
    with pytest.raises(PlanError, match=r"must be the JSON that PruningPlan.to_json writes"):
        PruningPlan.from_json(text)


def test_long_lists_are_shortened_in_the_letter():
    member = Member("w", 0, "produces", (0, 1, 1, 1))
    with pytest.raises(PlanError, match=r"Received \[0, 0, 1, 2, 3, 4, 5, 6, ...\]\. Correct"):
        PruningPlan("x", {"w": GroupPlan(20, (0, *range(15)), (member,))}, "by hand")


def test_a_plan_for_another_graph_is_refused(graph, transformer_graph):
    made = plan(graph, 0.5)
    for use in (made.cost, made.slices, made.require):
        with pytest.raises(PlanError, match=f"a plan for graph {graph.fingerprint} and a model"):
            use(transformer_graph)


def test_slices_name_every_narrowed_axis(graph):
    made = plan(graph, {"body.weight": 0.5})
    keep = made.keep["body.weight"]
    assert made.slices(graph) == {
        "body.weight": {0: keep},
        "body.bias": {0: keep},
        "back.weight": {1: keep},
    }


def test_slices_are_the_shapes_of_the_pruned_model(graph, model):
    made = plan(graph, 0.5)
    small = {**dict(prune(model, made).named_parameters())}
    slices = made.slices(graph)
    for name, value in small.items():
        for axis, kept in slices.get(name, {}).items():
            assert value.shape[axis] == len(kept)


def test_pricing_needs_no_weights_and_counts_like_a_second_trace(graph, model, images):
    made = plan(graph, 0.5)
    assert made.cost(graph) == trace(prune(model, made), images).cost()
    assert made.cost(graph).macs < graph.cost().macs


def test_a_plan_tells_whether_it_is_exact(transformer_graph):
    assert plan(transformer_graph, 0.5).exact
    assert not plan(transformer_graph, 0.5, inexact=True).exact


def test_a_plan_without_numbers_is_read(graph):
    made = plan(graph, 0.5)
    lines = [line for line in made.to_json().splitlines() if '"numbers"' not in line]
    assert PruningPlan.from_json("\n".join(lines)) == made


@pytest.mark.parametrize("value", ["true", '"3"', "1.5"])
def test_a_number_that_is_no_whole_number(graph, value):
    text = plan(graph, 0.5).to_json().replace('"numbers": {}', f'"numbers": {{"a.b": {value}}}')
    with pytest.raises(PlanError, match="must be a whole number"):
        PruningPlan.from_json(text)
