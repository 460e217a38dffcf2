import json

import torch

import flyweight as fw
from flyweight.origin import Origin
from flyweight.sensitivity.made_from import (
    differences_between,
    facts_of,
    mapping_of,
    network_text,
)

NAME = {"model": "yolov3_mobilenet_v1", "num_classes": 3, "width": 0.1}
FACTS = {
    "graph": "g",
    "weights": "w",
    "network": json.dumps(NAME),
    "preprocessing": json.dumps({"height": 64, "std": 1}),
    "data": "d",
}


def test_a_network_is_identified_with_and_without_weights():
    arguments = {"num_classes": 3, "width": 0.1}
    model = fw.create("yolov3_mobilenet_v1", **arguments)
    graph = fw.trace(model, (torch.zeros(1, 3, 64, 64),))
    found = facts_of(graph, model)
    assert found["graph"] == graph.fingerprint
    assert mapping_of(found["network"]) == NAME
    with torch.device("meta"):
        bare = fw.create("yolov3_mobilenet_v1", **arguments)
    del found["weights"]
    assert facts_of(graph, bare) == found
    small = fw.prune(model, fw.plan(graph, {"yolo_block.0.0.0.conv.weight": 0.5}))
    assert "pruned" in mapping_of(facts_of(graph, small)["network"])
    assert list(facts_of(graph, torch.nn.Linear(2, 2))) == ["graph", "weights"]


def test_what_differs_is_named():
    assert differences_between(FACTS, FACTS) == ()
    assert differences_between(FACTS, {}) == ()
    narrow = {**FACTS, "graph": "h", "weights": "v", "network": json.dumps({**NAME, "width": 0.2})}
    assert differences_between(FACTS, narrow) == ("width (0.1, here 0.2)", "weights (w, here v)")
    input_size = {**FACTS, "preprocessing": json.dumps({"height": 96})}
    found = differences_between(FACTS, input_size)
    assert found == ("input height (64, here 96)", "input std (1, here none)")
    assert differences_between(FACTS, {**FACTS, "data": "e"}) == ("data (d, here e)",)
    assert differences_between(FACTS, {**FACTS, "preprocessing": "["}) != ()
    # The first digits of a digest are enough.
    assert differences_between({"data": "1" * 64}, {"data": "2" * 64})[0] == f"data ({'1' * 12}, here {'2' * 12})"  # fmt: skip  # noqa: E501


def test_networks_of_one_structure_or_of_the_same_weights_are_one():
    spelled = {**FACTS, "network": json.dumps({**NAME, "norm": True})}
    assert differences_between(FACTS, spelled) == ()
    # Another version of flyweight may find other groups in the same network.
    assert differences_between(FACTS, {**FACTS, "graph": "h"}) == ()
    old = {"graph": "g", "weights": "w", "data": "d"}  # as version 0.1.0 recorded it
    assert differences_between(old, FACTS) == ()
    assert differences_between(old, {**FACTS, "graph": "h", "weights": ""}) == (
        "structure (g, here h)",
    )


def test_a_network_as_text():
    assert mapping_of(network_text(Origin("a", {"b": 1}))) == {"model": "a", "b": 1}
    assert mapping_of("[1]") is None
    assert mapping_of("[" * 100_000) is None
