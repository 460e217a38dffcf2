import pytest
import torch
from torch import nn

from flyweight.graph.meta import _KNOWN, result_of

functional = nn.functional
SCALE = torch.rand(4)
CALLS = {
    "batch_norm": lambda x: functional.batch_norm(x, SCALE, SCALE),
    "cat": lambda x: torch.cat([x, x, x[:, :1]], dim=1),
    "dropout": lambda x: functional.dropout(x, training=False),
    "elu": functional.elu,
    "gelu": functional.gelu,
    "group_norm": lambda x: functional.group_norm(x, 2),
    "hardsigmoid": functional.hardsigmoid,
    "hardswish": functional.hardswish,
    "hardtanh": functional.hardtanh,
    "layer_norm": lambda x: functional.layer_norm(x, x.shape[-1:]),
    "leaky_relu": functional.leaky_relu,
    "mish": functional.mish,
    "relu": functional.relu,
    "relu6": torch.nn.ReLU6(),
    "sigmoid": torch.sigmoid,
    "silu": functional.silu,
}


RECURRENT = {
    "lstm": nn.LSTM(3, 4, num_layers=2, bidirectional=True, batch_first=True),
    "gru": nn.GRU(3, 4),
}


@pytest.mark.parametrize("op", RECURRENT)
def test_shapes_of_recurrent_layers_are_pytorchs(op):
    layer, source = RECURRENT[op], torch.rand(5, 2, 3)
    expected = [tuple(t.shape) for t in torch.utils._pytree.tree_leaves(layer(source))]
    shape = (4 if op == "lstm" else 1, 5 if op == "lstm" else 2, 4)
    states = [torch.empty(shape, device="meta") for _ in range(2 if op == "lstm" else 1)]
    held = states if op == "lstm" else states[0]
    func = getattr(torch.ops.aten, op).input
    weights = [weight.to("meta") for weight in layer._flat_weights]
    rest = (True, layer.num_layers, 0.0, False, layer.bidirectional, layer.batch_first)
    found = result_of(op, func, (source.to("meta"), held, weights, *rest), {})
    assert [tuple(t.shape) for t in found] == expected


@pytest.mark.parametrize("op", sorted(set(_KNOWN) - set(RECURRENT)))
def test_shapes_and_types_are_pytorchs(op):
    source = torch.rand(2, 4, 3, 5, dtype=torch.float64) if op == "relu" else torch.rand(2, 4, 3, 5)
    expected = CALLS[op](source)
    calls = []

    class Seen(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            calls.append((func, args, kwargs or {}))
            return func(*args, **(kwargs or {}))

    with torch.inference_mode(), Seen():
        CALLS[op](source)
    func, args, kwargs = calls[-1]
    assert func._schema.name.removeprefix("aten::") in {op, "hardtanh"}
    moved = torch.utils._pytree.tree_map_only(torch.Tensor, lambda t: t.to("meta"), (args, kwargs))
    found = result_of(op, func, *moved)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)


def test_in_place_returns_its_argument():
    source = torch.rand(2, 3, device="meta")
    assert result_of("relu", torch.ops.aten.relu_.default, (source,), {}) is source


def test_legacy_empty_parts_are_left_aside():
    parts = [torch.empty(0, device="meta"), torch.empty(2, 3, device="meta")]
    assert result_of("cat", torch.ops.aten.cat.default, (parts, 1), {}).shape == (2, 3)


def test_the_rest_is_run():
    source = torch.rand(2, 3, device="meta")
    assert result_of("t", torch.ops.aten.t.default, (source,), {}).shape == (3, 2)
