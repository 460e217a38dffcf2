"""Public operations: names, sources of tensors, parameters."""

import pickle

import pytest
import timm
import torch
import torchvision
from torch import nn

from flyweight.graph import trace
from flyweight.graph.dispatch import evaluating
from flyweight.graph.operations import GraphTensor, Operation, names_of
from flyweight.graph.program import OUTSIDE
from flyweight.graph.recorder import module_paths
from flyweight.graph.stored import sharing_copy
from flyweight.replay.rerun import record

SMALL = (torch.rand(1, 3, 32, 32),)


def by_name(graph):
    found = {operation.name: operation for operation in graph.operations}
    assert len(found) == len(graph.operations), "names are unique"
    return found


def require_consistent(graph, model):
    """Every tensor comes from an earlier operation, an input, or the module itself."""
    made = {}
    stored = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for operation in graph.operations:
        for tensor in operation.inputs:
            if tensor.source == "operation":
                assert made[tensor.name] == tensor
                assert tensor.operation in {one.name for one in graph.operations}
            else:
                assert tensor.operation is None
            if tensor.stored:
                assert tuple(stored[tensor.name].shape) == tensor.shape
                assert isinstance(stored[tensor.name], nn.Parameter) == (
                    tensor.source == "parameter"
                )
        for name in operation.parameters.values():
            assert name in stored
        for tensor in operation.outputs:
            assert tensor.source == "operation"
            assert tensor.operation == operation.name
            assert tensor.name not in made
            made[tensor.name] = tensor
    assert all(made[tensor.name] == tensor for tensor in graph.outputs)


class Functional(nn.Module):
    """A residual network that calls functions only; its weights are plain parameters."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Parameter(torch.rand(6, 3, 3, 3))
        self.body = nn.Parameter(torch.rand(6, 6, 3, 3))
        self.bias = nn.Parameter(torch.rand(6))
        self.head = nn.Parameter(torch.rand(4, 6))

    def forward(self, x):
        x = nn.functional.relu(nn.functional.conv2d(x, self.stem, padding=1))
        y = nn.functional.conv2d(x, self.body, self.bias, padding=1)
        y = nn.functional.relu(y, inplace=True) + x
        return nn.functional.linear(y.mean((2, 3)), self.head)


NETWORKS = {
    "resnet18": lambda: torchvision.models.resnet18(num_classes=10),
    "mobilenet_v2": lambda: torchvision.models.mobilenet_v2(num_classes=10),
    "vit": lambda: timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2, num_classes=5
    ),
    "functional": Functional,
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_operations_of_whole_networks(kind):
    model = NETWORKS[kind]()
    graph = trace(model, SMALL)
    found = by_name(graph)
    require_consistent(graph, model)
    assert trace(model, SMALL).operations == graph.operations
    larger = trace(model, (torch.rand(2, 3, 32, 32),))
    assert list(by_name(larger)) == list(found), "names do not depend on sizes"
    assert pickle.loads(pickle.dumps(graph.operations)) == graph.operations
    layers = [one for one in graph.operations if one.op in ("conv2d", "linear")]
    counted = [op for op in graph.costs.ops if op.op in ("conv2d", "linear")]
    assert [one.module for one in layers] == [op.name for op in counted]
    assert all("weight" in one.parameters for one in layers)


def test_a_residual_block_of_resnet():
    graph = trace(torchvision.models.resnet18(num_classes=10), SMALL)
    found = by_name(graph)
    first = found["layer1.0.conv1.conv2d"]
    assert (first.module, first.op) == ("layer1.0.conv1", "conv2d")
    assert first.parameters == {"weight": "layer1.0.conv1.weight"}
    assert first.shapes == ((1, 64, 8, 8),)
    assert first.arguments["stride"] == (1, 1)
    assert [tensor.name for tensor in first.inputs] == [
        "maxpool.max_pool2d",
        "layer1.0.conv1.weight",
    ]
    # One ReLU module is called twice in a block, and it writes in place.
    add = found["layer1.0.add"]
    assert [tensor.operation for tensor in add.inputs] == [
        "layer1.0.bn2.batch_norm",
        "maxpool.max_pool2d",
    ]
    again = found["layer1.0.relu.relu#2"]
    assert [tensor.name for tensor in again.inputs] == ["layer1.0.add"]
    norm = found["bn1.batch_norm"]
    sources = [tensor.source for tensor in norm.inputs]
    assert sources == ["operation", "parameter", "parameter", "buffer", "buffer"]
    assert graph.operations[0].inputs[0] == GraphTensor(
        "args[0]", "input", (1, 3, 32, 32), torch.float32
    )
    assert [tensor.operation for tensor in graph.outputs] == ["fc.linear"]


def test_limits_of_activations_are_arguments():
    graph = trace(torchvision.models.mobilenet_v2(num_classes=10), SMALL)
    relu6 = by_name(graph)["features.0.2.hardtanh"]
    assert (relu6.arguments["min_val"], relu6.arguments["max_val"]) == (0, 6)
    depthwise = by_name(graph)["features.1.conv.0.0.conv2d"]
    assert depthwise.arguments["groups"] == 32


def test_functional_code_has_its_operations_by_number():
    graph = trace(Functional(), SMALL)
    assert list(by_name(graph)) == ["conv2d", "relu", "conv2d#2", "relu#2", "add", "mean", "linear"]
    assert by_name(graph)["conv2d#2"].parameters == {"weight": "body", "bias": "bias"}
    assert {operation.module for operation in graph.operations} == {""}


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x, mask, options=None):
        y = self.first(x) * mask
        return self.last(y if options is None else y + options["shift"])


def test_inputs_have_the_names_of_their_places():
    x, mask, shift = torch.rand(2, 4), torch.rand(2, 1), torch.rand(1)
    graph = trace(Masked(), (x,), {"mask": mask, "options": {"shift": shift}})
    found = by_name(graph)
    assert found["first.linear"].inputs[0].name == "args[0]"
    assert found["mul"].inputs[1].name == "kwargs['mask']"
    assert found["add"].inputs[1].name == "kwargs['options']['shift']"
    assert {found["mul"].inputs[1].source, found["add"].inputs[1].source} == {"input"}
    assert found["mul"].inputs[1].shape == (2, 1)
    assert list(graph.prunable()) == ["first.weight"]
    assert graph.inputs == (((2, 4), "float32"),)
    assert graph.keywords == {"mask": ((2, 1), "float32"), "options": {"shift": ((1,), "float32")}}


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.shared, self.other = nn.Linear(4, 4), nn.Linear(4, 4)
        self.other.weight = self.shared.weight

    def forward(self, x):
        return self.other(self.shared(self.shared(x)))


def test_a_module_that_is_called_twice_and_tied_weights():
    graph = trace(Twice(), (torch.rand(2, 4),))
    found = by_name(graph)
    assert list(found) == ["shared.linear", "shared.linear#2", "other.linear"]
    assert found["shared.linear#2"].inputs[0].operation == "shared.linear"
    weights = [operation.parameters["weight"] for operation in graph.operations]
    assert weights == ["shared.weight"] * 3
    assert found["other.linear"].parameters["bias"] == "other.bias"
    assert found["other.linear"].module == "other"


class Split(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 1)
        self.scale = torch.ones(1)
        self.outside = [torch.ones(1)]

    def forward(self, x):
        left, right = self.first(x).transpose(2, 3).contiguous().chunk(2, 1)
        return self.last(torch.cat([right * self.scale, left * self.outside[0]], 1)), left


def test_several_results_lists_and_constants():
    graph = trace(Split(), SMALL)
    found = by_name(graph)
    assert "contiguous" not in {operation.op for operation in graph.operations}
    chunk = found["chunk"]
    assert [tensor.name for tensor in chunk.outputs] == ["chunk[0]", "chunk[1]"]
    assert [tensor.name for tensor in chunk.inputs] == ["transpose"]
    assert [tensor.name for tensor in found["cat"].inputs] == ["mul", "mul#2"]
    assert found["cat"].arguments["tensors"] == found["cat"].inputs
    assert found["mul"].inputs[1].name == "scale"
    assert found["mul"].inputs[1].source == "buffer"
    assert found["mul#2"].inputs[1].source == "constant"
    assert [tensor.name for tensor in graph.outputs] == ["last.conv2d", "chunk[0]"]


class Choosing(nn.Module):
    """Asks for a value, so that it is traced on the values of the example."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 2, 1))
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        x = self.layers(x) if x.sum() > 0 else x
        tokens = x.flatten(2)[..., :4]
        return self.attention(tokens, tokens, tokens)[0]


@pytest.mark.parametrize("make", [torchvision.models.resnet18, Functional, Choosing])
def test_a_run_on_values_has_the_same_operations(make):
    model = make()
    graph = trace(model, SMALL)
    copy = sharing_copy(model)
    with evaluating(copy), module_paths(copy, OUTSIDE) as path:
        run = record(copy, lambda: copy(torch.rand(3, 3, 32, 32)), path=path)
    assert [name for name, _ in names_of(run.calls)] == list(by_name(graph))
    assert not any("native_multi_head" in operation.op for operation in graph.operations)


def test_operations_are_plain_values():
    graph = trace(Functional(), SMALL)
    (one, *_) = graph.operations
    assert isinstance(one, Operation)
    with pytest.raises(AttributeError):
        one.name = "other"
    assert len(set(graph.operations)) == len(graph.operations)
