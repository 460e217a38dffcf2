import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tests.measuring.conftest import invent

import flyweight as fw
from flyweight.pipeline.results import (
    Benchmarked,
    Trained,
    checkpoint_digests,
    pruned_checkpoint,
)


@pytest.fixture
def save(tmp_path):
    def write(name, metric, scale=1.0):
        torch.manual_seed(0)
        model = fw.create("timm/mobilenetv2_035", num_classes=2)
        next(model.parameters()).data.mul_(scale)
        path = tmp_path / f"{name}.safetensors"
        fw.save(model, path, task="classify", labels=("a", "b"), metrics={"top1": metric})
        return Trained(path, {}, 0.0)

    return write


def test_digests_of_a_network_tell_its_weights_from_its_description(save):
    first, same = checkpoint_digests(save("a", 0.5)), checkpoint_digests(save("b", 0.5))
    assert first == same
    told, trained = checkpoint_digests(save("c", 0.6)), checkpoint_digests(save("d", 0.5, 2.0))
    assert told["weights"] == first["weights"]
    assert told["description"] != first["description"]
    assert trained["weights"] != first["weights"]
    assert trained["description"] == first["description"]
    assert json.dumps(first)


def test_measurements_of_one_file():
    rows = (invent("a.onnx", 1.0), invent("b.onnx", 2.0), invent("a.onnx", 1.0, threads=2))
    assert Benchmarked(rows).of(Path("/x/a.onnx")) == (rows[0], rows[2])


def test_the_pruned_network_of_a_chain_is_the_distilled_one_if_there_is_one():
    pruned, distilled = SimpleNamespace(checkpoint=Path("a")), SimpleNamespace(checkpoint=Path("b"))
    assert pruned_checkpoint({"prune": pruned}) == Path("a")
    assert pruned_checkpoint({"prune": pruned, "distill": distilled}) == Path("b")
