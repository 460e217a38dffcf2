import torch
from tests.quantization.conftest import Residual, trained_like
from torch import nn

from flyweight.graph.example_inputs import Example
from flyweight.quantization.placement import layers_of, place
from flyweight.quantization.sites import record_sites


def placed(model, *shapes, skip=()):
    inputs = tuple(torch.randn(shape) for shape in shapes or [(1, 3, 16, 16)])
    recorded = record_sites(model, Example(inputs))
    return place(recorded, skip), recorded


def test_a_residual_block_is_integer_throughout(residual):
    plan, recorded = placed(residual)
    layers = {layer.operation: layer for layer in plan.layers.values()}
    assert set(layers) == set(layers_of(recorded))
    assert plan.floats == {}
    assert layers["stem.0.conv2d"].norm.mean == "stem.1.running_mean"
    assert layers["stem.0.conv2d"].source == "args[0]"
    assert layers["narrow.conv2d"].source == "branch.2.hardtanh"
    # Nothing between a convolution and the activation that runtimes compute with it.
    assert "stem.0|conv2d|1" not in plan.outputs
    assert "stem.1|batch_norm|1" not in plan.outputs
    assert plan.outputs["stem.2|hardtanh|1"] == "stem.2.hardtanh"
    assert plan.limits == {"stem.2.hardtanh": 6.0, "branch.2.hardtanh": 6.0}
    # One quantizer for a tensor, also through pooling and flattening.
    assert plan.outputs["|max_pool2d|1"] == plan.outputs["|add|1"] == "add"
    assert plan.outputs["|flatten|1"] == plan.outputs["|adaptive_avg_pool2d|1"]
    assert plan.outputs["narrow|conv2d|1"] == "narrow.conv2d"


def test_an_activation_that_is_not_fused_has_quantizers_on_both_sides():
    model = trained_like(Residual(nn.LeakyReLU))
    plan, _ = placed(model)
    assert plan.outputs["stem.1|batch_norm|1"] == "stem.1.batch_norm"
    assert plan.outputs["stem.2|leaky_relu|1"] == "stem.2.leaky_relu"


def test_a_sum_before_a_relu_has_one_quantizer_after_it():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

        def forward(self, x):
            return torch.relu(self.one(x) + self.other(x))

    plan, _ = placed(Sum())
    assert "|add|1" not in plan.outputs
    assert plan.outputs["|relu|1"] == "relu"


def test_a_tensor_that_two_operations_take_is_quantized_before_both():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x):
            y = self.conv(x)
            return torch.cat([y, torch.relu(y)], 1)

    plan, _ = placed(Both())
    assert plan.outputs == {
        "conv|conv2d|1": "conv.conv2d",
        "|relu|1": "relu",
        "|cat|1": "cat",
    }


class Joined(nn.Module):
    """Two concatenated tensors, and what changes them before the next layer."""

    def __init__(self, change, also=False):
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(8, 4, 1)
        self.norm, self.change, self.also = nn.BatchNorm2d(8), change, also

    def forward(self, x):
        y = self.conv(x)
        joined = torch.cat([y, torch.tanh(y)], 1)
        made = self.last(self.change(self, joined))
        return (made, joined * 2) if self.also else made


def test_a_concatenation_is_rounded_after_what_changes_it_value_by_value():
    inner = {"conv|conv2d|1": "conv.conv2d", "|tanh|1": "tanh"}
    end = {"last|conv2d|1": "last.conv2d"}
    plan, _ = placed(Joined(lambda own, x: torch.relu(own.norm(x))).eval())
    assert plan.outputs == {**inner, "|relu|1": "relu", **end}
    plan, _ = placed(Joined(lambda own, x: own.norm(x).sigmoid()).eval())
    norm = {"norm|batch_norm|1": "norm.batch_norm", "|sigmoid|1": "sigmoid"}
    assert plan.outputs == {**inner, **norm, **end}
    plan, _ = placed(Joined(lambda own, x: x * 0.5))
    assert plan.outputs == {**inner, "|mul|1": "mul", **end}


def test_a_concatenation_that_two_operations_take_is_rounded():
    plan, _ = placed(Joined(lambda own, x: torch.relu(x), also=True))
    assert {"|cat|1", "|relu|1"} < set(plan.outputs)


def test_what_stays_float_has_a_reason():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.up = nn.ConvTranspose2d(3, 4, 2)
            self.attention = nn.MultiheadAttention(4, 2)
            self.rows = nn.Parameter(torch.randn(4, 4))
            self.head = nn.Linear(4, 4)

        def forward(self, x):
            y = self.up(x).flatten(2).permute(2, 0, 1)
            y = y + self.attention(y, y, y, need_weights=False)[0]
            y = torch.einsum("nbc,cd->nbd", y, self.rows)
            return self.head(nn.functional.linear(y, self.rows * 2))

    plan, _ = placed(Mixed().eval(), (1, 3, 3, 3))
    layers = [layer.operation for layer in plan.layers.values()]
    assert layers == ["attention.linear", "attention.linear#2", "head.linear"]
    assert "transposed convolution" in plan.floats["up.conv_transpose2d"]
    assert "one operation" in plan.floats["attention.scaled_dot_product_attention"]
    assert "einsum" in plan.floats["einsum"]
    assert plan.floats["linear"] == "its weight or bias is computed"


def test_named_operations_stay_float(residual):
    plan, _ = placed(residual, skip=("branch.*", "head*"))
    assert set(plan.floats) == {"branch.0.conv2d", "head.linear"}
    assert set(plan.floats.values()) == {"named by the option to skip"}
    assert {layer.operation for layer in plan.layers.values()} == {
        "stem.0.conv2d",
        "narrow.conv2d",
    }
    assert plan.norms == ("stem.1|batch_norm|1",)


def test_a_network_without_layers_has_an_empty_plan():
    plan, _ = placed(nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)))
    assert not plan.layers
    assert not plan.outputs


def chosen(model, *names):
    example = Example((torch.randn(1, 3, 16, 16),))
    return place(record_sites(model, example), (), dict.fromkeys(names, "measured"))


def test_layers_that_are_chosen_to_stay_float_keep_what_joins_them_in_float(residual):
    plan = chosen(residual, "narrow.conv2d")
    assert plan.floats == {"narrow.conv2d": "measured"}
    assert {layer.operation for layer in plan.layers.values()} == {
        "stem.0.conv2d",
        "branch.0.conv2d",
        "head.linear",
    }
    # The sum is float, and what leads from it to the next integer layer is rounded once.
    assert "|add|1" not in plan.outputs
    assert plan.outputs["|flatten|1"] == plan.outputs["|adaptive_avg_pool2d|1"]


def test_nothing_is_rounded_that_only_chosen_layers_read(residual):
    plan = chosen(residual, "narrow.conv2d", "head.linear")
    assert "|adaptive_avg_pool2d|1" not in plan.outputs
    assert "|max_pool2d|1" not in plan.outputs
    assert plan.outputs["branch.2|hardtanh|1"] == "branch.2.hardtanh"


def test_arithmetic_of_boxes_and_chosen_rows_stays_as_it_is():
    class Boxes(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 1), nn.Linear(4, 4)

        def forward(self, x):
            moved = self.conv(x).flatten(2).transpose(1, 2)[0]
            sizes = torch.arange(1.0, 1 + len(moved))[:, None]
            boxes = moved * sizes + sizes
            kept = boxes[boxes[:, 0].topk(3).indices]
            return boxes, kept * kept[:1], self.head(moved + moved.flip(0))

    plan, _ = placed(Boxes())
    assert {"|mul|1", "|add|1", "|mul|2"}.isdisjoint(plan.outputs)
    assert plan.outputs["|add|2"] == "add#2"
    assert plan.outputs["|flip|1"] == plan.outputs["conv|conv2d|1"]


def test_masks_are_not_rounded():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, rows, mask):
            return self.last(self.first(rows) + (1 - mask) * -1e30)

    recorded = record_sites(Masked(), Example((torch.rand(2, 4), torch.ones(2, 1).long())))
    plan = place(recorded)
    assert plan.inputs == {"args[0]": "args[0]"}
    assert set(plan.outputs) == {"first|linear|1", "|add|1", "last|linear|1"}


def test_operations_that_move_values_keep_the_grid():
    class Moving(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(2, 4, 1)

        def forward(self, x):
            y = self.conv(x)
            one, _, *_ = nn.functional.pad(y.roll(1, 2), (1, 1)).unflatten(1, (2, 2)).unbind(1)
            return self.last(nn.functional.adaptive_max_pool2d(one, 4))

    plan, _ = placed(Moving())
    assert set(plan.outputs.values()) == {"conv.conv2d", "last.conv2d"}
    padded = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ConstantPad2d(1, 2.0), nn.Conv2d(4, 4, 1))
    assert placed(padded)[0].outputs["1|pad|1"] == "1.pad"


def test_a_product_with_a_stored_tensor_has_a_reason():
    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)
            self.rows = nn.Parameter(torch.randn(4, 3))

        def forward(self, x):
            return self.linear(x) @ self.rows

    plan, _ = placed(Product(), (2, 4))
    assert "no linear layer" in plan.floats["matmul"]
    assert "|matmul|1" not in plan.outputs


def test_tokens_with_a_stored_code_of_places_stay_features():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)
            self.token = nn.Parameter(torch.randn(1, 1, 4))
            self.register_buffer("places", torch.randn(1, 6, 4))

        def forward(self, rows):
            rows = torch.cat([self.token.expand(len(rows), -1, -1), rows], 1) + self.places
            return rows + self.linear(rows)

    plan, _ = placed(Tokens(), (2, 5, 4))
    assert set(plan.outputs) == {"|expand|1", "|add|1", "linear|linear|1", "|add|2"}
