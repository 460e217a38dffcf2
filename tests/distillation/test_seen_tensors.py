import pytest
import torch
from tests.distillation.networks import Classifier, Segmenter, pruned, seeded, yolo
from torch import nn

import flyweight as fw
from flyweight.distillation.seen_tensors import LastLayers, see_network
from flyweight.errors import GraphError


def see(model, side=32):
    return see_network(model.eval(), torch.zeros(1, 3, side, side))


def test_operations_have_the_names_of_the_recorded_graph():
    model = Classifier()
    seen = see(model)
    graph = fw.trace(model, (torch.zeros(1, 3, 32, 32),))
    shapes = {one.name: one.shapes[0] for one in graph.operations}
    assert len(seen.tensors) > 15
    assert all(shapes[one.operation] == one.shape for one in seen.tensors)


def test_a_hook_is_on_the_innermost_module_and_its_depth_is_of_the_outermost():
    found = see(Classifier()).find("layer0.1.relu.relu#2")
    assert (found.module, found.call, found.place) == ("layer0.1.relu", 1, "output")
    assert (found.depth, found.stride, found.channels) == (1, 2, 8)
    inner = see(Classifier()).find("layer0.0.relu.relu#2")
    assert inner.depth == 2


def test_what_is_overwritten_later_is_not_seen():
    seen = see(Classifier())
    # The block adds to the result of bn2 in place, and the ReLU writes into that of bn1.
    assert seen.find("layer0.0.bn2.batch_norm") is None
    assert seen.find("layer0.0.bn1.batch_norm") is None
    assert seen.find("layer0.0.conv2.conv2d") is not None


def test_a_module_that_passes_a_tensor_on_is_not_hooked():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Identity(), nn.Dropout(), nn.Conv2d(4, 2, 1))
    assert [one.module for one in see(model).tensors] == ["0", "3"]


def test_heads_know_their_layer_and_what_it_takes():
    head = see(Classifier()).heads[0]
    assert (head.place, head.shape) == ("output", (1, 5))
    assert (head.source, head.ends) == ("layer1.1.relu.relu#2", ())  # It is of vectors.
    # Scores that are resized afterwards are not taken for features.
    scores = see(Segmenter()).heads[0]
    assert (scores.ends, scores.source) == ((), "up.1.relu")
    first, *_ = see(yolo(), 64).heads
    tip = tuple(f"yolo_block.0.tip.{name}" for name in ("conv", "bn", "activation"))
    assert first.place == "output[0]"
    assert first.ends[:2] == (
        LastLayers("yolo_block.0.tip.activation.leaky_relu", ("yolo_output.0.conv",)),
        LastLayers("yolo_block.0.2.activation.leaky_relu", (*tip, "yolo_output.0.conv")),
    )


def test_the_last_layers_of_a_head_begin_where_modules_do_more_or_take_more():
    class Summed(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.stem, self.first = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1)
            self.act, self.inner = nn.ReLU(inplace=True), inner
            self.last = nn.Conv2d(4, 2, 1)

        def forward(self, x):
            found = self.stem(x)
            return self.last(self.inner(found + self.act(self.first(found))))

    class Twice(nn.Conv2d):
        def forward(self, x):
            return super().forward(x).relu()

    for inner, modules in (
        (nn.Conv2d(4, 4, 1), [("last",), ("inner", "last")]),  # Before it lies a sum.
        (Twice(4, 4, 1), [("last",)]),
        (nn.Identity(), []),  # The sum is no result of a module.
    ):
        head = see(Summed(inner)).heads[0]
        found = [one.modules for one in head.ends]
        assert found[: len(modules)] == modules[: len(found)]


def test_a_pruned_network_is_seen_under_the_same_names():
    dense = yolo()
    small = pruned(dense, side=64)
    ours, theirs = see(small, 64), see(dense, 64)
    assert [one.operation for one in ours.tensors] == [one.operation for one in theirs.tensors]
    assert any(
        one.channels < two.channels for one, two in zip(ours.tensors, theirs.tensors, strict=True)
    )


def test_layouts_are_those_of_maps_tokens_and_vectors():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.norm = nn.Conv2d(3, 10, 8, 8), nn.LayerNorm(10)
            self.last = nn.LayerNorm(10)
            self.head = nn.Linear(10, 2)

        def forward(self, x):
            maps = self.embed(x).permute(0, 2, 3, 1)
            tokens = self.last(self.norm(maps).flatten(1, 2))
            return self.head(tokens.mean(dim=1))

    found = {one.module: (one.layout, one.channels) for one in see(Tokens()).tensors}
    assert found["embed"] == ("maps", 10)
    # Channels in the last place: 10 of them are no width of a map of 4 x 4.
    assert found["norm"] == ("last", 10)
    assert found["last"] == ("tokens", 10)
    assert found["head"] == ("vectors", 2)


def test_a_network_stays_as_it_was():
    model = seeded(Classifier).train()
    before = {name: one.clone() for name, one in model.state_dict().items()}
    see_network(model, torch.zeros(1, 3, 32, 32))
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())


def test_a_network_that_asks_for_values_runs_on_them():
    class Asking(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 1), nn.Linear(4, 2)

        def forward(self, x):
            found = self.conv(x)
            if found.mean().item() < 1e6:
                found = found * 2
            return self.fc(found.mean(dim=(2, 3)))

    assert see(Asking()).find("conv.conv2d") is not None


def test_a_network_that_fails_is_reported_with_its_reason():
    with pytest.raises(GraphError, match="Received from Classifier: "):
        see_network(Classifier(), torch.zeros(1, 7, 32, 32))


def test_a_quantizer_is_as_deep_as_the_layer_that_it_rounds():
    dense = Classifier().eval()
    quantized = fw.quantize(dense, torch.randn(4, 3, 32, 32), fw.QuantConfig(weight_bits=7))
    seen = see(quantized)
    ends = [one for one in seen.tensors if one.is_map and one.depth == 1]
    assert [one.stride for one in ends] == [2, 2, 4]
    # The rounding is what comes last.
    assert ends[-1].operation.startswith("layer1.1.relu.")
