import subprocess
import sys

import pytest
import torch
from torch import nn

import flyweight as fw
from flyweight.errors import GraphError
from flyweight.graph.program import Value
from flyweight.graph.recording import record

IMAGE = torch.rand(1, 3, 8, 8)
FOLLOWED = frozenset(["conv2d", "relu", "linear", "cat", "add", "gt", "mul", "batch_norm"])


def recorded(model, args, followed=FOLLOWED):
    return record(model, args, followed).evaluation


def names(model, *args, followed=FOLLOWED):
    return [call.op for call in recorded(model, args, followed).calls]


def test_composite_operations_stay_whole():
    # Inference mode arranges this; without it, `linear` would arrive as `t` and `addmm`.
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2))
    assert names(model, IMAGE, followed=FOLLOWED | {"flatten"}) == ["conv2d", "flatten", "linear"]


def test_what_is_not_followed_is_taken_apart_where_pytorch_can():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2))
    found = names(model, IMAGE, followed=frozenset())
    assert found[0] == "convolution"
    assert "linear" not in found
    assert "addmm" in found


def test_where_and_arguments():
    model = nn.Sequential(nn.Identity(), nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)))
    recording = recorded(model, (IMAGE,), FOLLOWED)
    (call,) = recording.calls
    assert (call.op, call.where, call.single) == ("conv2d", "1.0", True)
    assert call.results[0].shape == (1, 4, 8, 8)
    assert call.arguments["padding"] == [1, 1]
    assert call.arguments["groups"] == 1
    assert recording.names[call.arguments["weight"].number] == "1.0.weight"
    assert recording.outputs == call.results
    assert call.arguments["input"].shape == (1, 3, 8, 8)


def test_in_place_results_are_new_values():
    recording = recorded(
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True)), (IMAGE,), FOLLOWED
    )
    made, changed = (call.results[0] for call in recording.calls)
    assert [call.op for call in recording.calls] == ["conv2d", "relu"]
    assert recording.calls[1].arguments["self"] == made
    assert changed.number != made.number
    assert recording.outputs == (changed,)


def test_a_shared_tensor_has_one_number_and_its_first_name():
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
    model[1].weight = model[0].weight
    recording = recorded(model, (IMAGE,), FOLLOWED)
    weights = [call.arguments["weight"] for call in recording.calls]
    assert weights[0] == weights[1]
    assert recording.names[weights[0].number] == "0.weight"
    assert "1.weight" not in recording.names.values()


class Remembering(nn.Module):
    """Writes into buffers and attributes, as caches and counters do."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("count", torch.zeros(1))
        self.last = None
        self.scale = torch.ones(4)

    def forward(self, x):
        self.count.add_(1)
        self.scale.mul_(2)
        self.last = self.layer(x)
        return self.last if x.shape[0] == 1 else self.last[x.sum(1) > 0]


@pytest.mark.parametrize("images", [1, 2])
def test_nothing_that_forward_writes_stays(images):
    model = Remembering()
    record(model, (torch.ones(images, 4),), FOLLOWED)
    assert model.last is None
    assert float(model.count) == 0
    assert torch.equal(model.scale, torch.ones(4))


def test_a_model_that_cannot_be_copied_is_run_all_the_same():
    model = nn.Sequential(nn.Conv2d(3, 4, 1))
    model.source = (number for number in range(3))
    assert names(model, IMAGE) == ["conv2d"]


class Choosing(nn.Module):
    def forward(self, x):
        return x[x.sum((1, 2, 3)) > 0].mul(2)


def test_values_are_used_where_shapes_do_not_do():
    images = torch.stack([torch.ones(3, 2, 2), -torch.ones(3, 2, 2), torch.ones(3, 2, 2)])
    recording = recorded(Choosing(), (images,), FOLLOWED)
    assert recording.outputs[0].shape == (2, 3, 2, 2)


def test_without_values_the_question_is_one_line():
    with pytest.raises(GraphError, match=r"^The model must run on the example inputs\. Received"):
        record(Choosing(), (torch.rand(2, 3, 2, 2, device="meta"),), FOLLOWED)


def test_constants_meet_the_meta_device():
    class Counting(nn.Module):
        def forward(self, x):
            place = torch.arange(x.shape[-1])
            return x + place * int(place.max())

    recording = recorded(Counting(), (IMAGE,), FOLLOWED)
    assert recording.outputs[0].shape == (1, 3, 8, 8)


def test_nested_inputs_and_outputs():
    class Nested(nn.Module):
        def forward(self, pair):
            return {"sum": [pair["a"] + pair["b"][0]], "none": None}

    shape = (2, 3)
    recording = recorded(Nested(), ({"a": torch.rand(shape), "b": [torch.rand(shape)]},), FOLLOWED)
    assert [value.shape for value in recording.outputs] == [shape]
    assert isinstance(recording.calls[0].arguments["self"], Value)


def test_a_model_that_returns_nothing():
    class Silent(nn.Module):
        def forward(self, x):
            return None

    with pytest.raises(GraphError, match="Received NoneType from Silent"):
        record(Silent(), (IMAGE,), FOLLOWED)


def test_the_compiler_is_not_imported():
    # TorchDynamo takes longer to import than most networks take to trace.
    code = (
        "import sys, torch; from torch import nn; from flyweight.graph import trace;"
        "m = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU6(), nn.Conv2d(4, 2, 1));"
        "trace(m, (torch.rand(1, 3, 8, 8),)); sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class Writing(nn.Module):
    """Leaves tensors in its inputs; `reads` makes it run on values."""

    def __init__(self, reads=False):
        super().__init__()
        self.first, self.last, self.reads = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1), reads

    def forward(self, batch, kept=None):
        image = batch.pop("image")
        if self.reads and image.sum() < -1e9:
            return image
        image.sub_(0.5)
        found = self.first(image)
        if kept is not None:
            kept.append(found)
        return self.last(found)


@pytest.mark.parametrize("reads", [False, True])
def test_what_is_left_in_the_inputs_is_known_and_the_user_s_inputs_stay(reads):
    model, image, kept = Writing(reads), IMAGE.clone(), []
    given = {"image": image}
    graph = fw.trace(model, (given, kept))
    assert graph.groups["first.weight"].reason == "is left in an input of the model"
    assert list(given) == ["image"]
    assert kept == []
    assert torch.equal(image, IMAGE)
    free = fw.trace(model, (given,))
    assert free.groups["first.weight"].reason is None
    small = fw.prune(model.double(), fw.plan(fw.trace(model, ({"image": image.double()},)), 0.5))
    assert small.first.out_channels == 4
    run = recorded(Writing(), (given, kept))
    assert [value.shape for value in run.left] == [(1, 8, 8, 8)]
    assert [value.shape for value in run.outputs] == [(1, 2, 8, 8)]


class OneSize(nn.Module):
    """Asks for values, and takes one image size and every batch."""

    def forward(self, x):
        if float(x.mean()) > 2 or x.shape[2] != 8:
            raise ValueError
        return x * 2


def test_few_other_sizes_are_tried_on_values():
    recording = record(OneSize(), (torch.rand(2, 3, 8, 8),), FOLLOWED)
    assert [tuple(one.outputs[0].shape) for one in recording.runs if one.resized] == [(3, 3, 8, 8)]
