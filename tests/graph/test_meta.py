import itertools
import subprocess
import sys

import pytest
import torch
from torch import nn

from flyweight.graph.meta import _KNOWN, result_of

functional = nn.functional
SCALE = torch.rand(4)
CALLS = {
    "adaptive_avg_pool2d": lambda x: functional.adaptive_avg_pool2d(x, (1, 2)),
    "add": lambda x: x + x,
    "conv1d": lambda x: functional.conv1d(x[:, :, 0].contiguous(), torch.rand(6, 2, 2), groups=2),
    "conv2d": lambda x: functional.conv2d(x, torch.rand(6, 4, 2, 3), torch.rand(6), stride=2),
    "conv3d": lambda x: functional.conv3d(x[:, :, None], torch.rand(2, 4, 1, 3, 3), padding=1),
    "max_pool2d": lambda x: functional.max_pool2d(x, (3, 2), stride=2, padding=1),
    "mul": lambda x: x * 2,
    "sub": lambda x: x - 0.5,
    "upsample_bilinear2d": lambda x: functional.interpolate(x, (7, 4), mode="bilinear"),
    "upsample_nearest2d": lambda x: functional.interpolate(x, scale_factor=2.5),
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


@pytest.mark.parametrize("settings", [*itertools.product((1, 2, 3), (0, 1, 2), (1, 2), (1, 2))])
def test_sizes_of_convolutions_are_pytorchs(settings):
    stride, padding, dilation, groups = settings
    weight, source = torch.rand(4, 4 // groups, 3, 2), torch.rand(2, 4, 9, 8)
    rest = ([stride], [padding, padding + 1], [dilation], groups)
    expected = torch.conv2d(source, weight, None, *rest)
    moved = (source.to("meta"), weight.to("meta"), None, *rest)
    found = result_of("conv2d", torch.ops.aten.conv2d.default, moved, {})
    assert (found.shape, found.stride()) == (expected.shape, expected.stride())
    window = ([3, 2], [stride], [padding // 2], [dilation])
    expected = torch.max_pool2d(source, *window)
    found = result_of("max_pool2d", torch.ops.aten.max_pool2d.default, (moved[0], *window), {})
    assert (found.shape, found.stride()) == (expected.shape, expected.stride())


@pytest.mark.parametrize(
    ("shape", "rest"),
    [
        ((2, 3, 9, 9), ([1], [0], [1], 1)),  # other channels than the weight's
        ((2, 4, 2, 9), ([1], [0], [1], 1)),  # smaller than the kernel
    ],
)
def test_what_pytorch_refuses_is_refused(shape, rest):
    source, weight = torch.rand(shape, device="meta"), torch.rand(4, 4, 3, 3, device="meta")
    with pytest.raises(RuntimeError):
        result_of("conv2d", torch.ops.aten.conv2d.default, (source, weight, None, *rest), {})


def test_layouts_broadcasts_and_types_are_left_to_pytorch():
    source = torch.rand(2, 4, 9, 9, device="meta").to(memory_format=torch.channels_last)
    weight = torch.rand(4, 4, 3, 3, device="meta")
    found = result_of("conv2d", torch.ops.aten.conv2d.default, (source, weight), {})
    assert found.stride() == torch.conv2d(source, weight).stride()
    whole, row = torch.rand(2, 3, device="meta"), torch.rand(3, device="meta", dtype=torch.float64)
    add = torch.ops.aten.add.Tensor
    assert result_of("add", add, (whole, row), {}).dtype == torch.float64
    assert result_of("add", add, (row, whole), {}).shape == (2, 3)
    counts = torch.ones(2, dtype=torch.int64, device="meta")
    assert result_of("mul", torch.ops.aten.mul.Tensor, (counts, 0.5), {}).dtype == torch.float32


def test_a_detector_is_traced_without_the_compiler():
    code = (
        "import sys, torch, flyweight as fw; "
        "model = fw.create('yolov3_mobilenet_v1', num_classes=2, width=0.125); "
        "fw.trace(model, (torch.rand(1, 3, 64, 64),)); "
        "print('sympy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(("channels", "groups"), [(8, 16), (6, 4)])
def test_a_normalisation_of_too_many_groups_fails_as_in_pytorch(channels, groups):
    source = torch.rand(1, channels, 4, device="meta")
    with pytest.raises(RuntimeError, match="divisible"):
        result_of("group_norm", torch.ops.aten.group_norm.default, (source, groups), {})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((2, 4, 3, 5), (2, 4, 1, 1)),
        ((2, 4, 1, 1), (2, 4, 3, 5)),
        ((2, 1, 3, 5), (2, 4, 1, 1)),
        ((0, 4), (1, 4)),
        ((1, 4), (4,)),
    ],
)
def test_values_are_broadcast_as_pytorch_does(one, other):
    expected = torch.rand(one) * torch.rand(other)
    operands = torch.empty(one, device="meta"), torch.empty(other, device="meta")
    found = result_of("mul", torch.ops.aten.mul.Tensor, operands, {})
    assert (found.shape, found.stride()) == (expected.shape, expected.stride())
