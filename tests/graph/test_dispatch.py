from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from flyweight.graph.dispatch import Dispatch, bound, evaluating, name_of, plain_attention


class _Names(Dispatch):
    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        self.seen.append((name_of(func), bound(func, args, kwargs)))
        return func(*args, **kwargs)


def test_operations_are_seen_whole_and_by_the_names_of_their_arguments():
    layer, image = nn.Conv2d(3, 4, 1), torch.rand(1, 3, 2, 2)
    with evaluating(layer), _Names() as mode:
        layer(image).relu_()
    convolution, relu = mode.seen
    assert convolution[0] == "conv2d"
    assert convolution[1]["weight"] is layer.weight
    assert convolution[1]["groups"] == 1
    assert relu[0] == "relu"


def test_special_methods_keep_their_name():
    assert name_of(torch.ops.aten.__and__.Tensor) == "__and__"


def test_modes_and_the_fast_path_come_back():
    model = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
    model.add_module("attention", nn.MultiheadAttention(4, 2, batch_first=True))
    x = torch.rand(2, 3, 4)
    with evaluating(model), _Names() as mode:
        assert not any(module.training for module in model.modules())
        assert torch.is_inference_mode_enabled()
        model.attention(x, x, x)
    assert "_native_multi_head_attention" not in [name for name, _ in mode.seen]
    assert [module.training for module in model] == [True, False, True]
    assert _fuses(model.attention.eval())


def _fuses(model):
    """Whether a network of attention runs as one fused operation."""
    x = torch.rand(2, 3, 4)
    with torch.inference_mode(), _Names() as mode:
        model(*[x] * (3 if isinstance(model, nn.MultiheadAttention) else 1))
    names = {name for name, _ in mode.seen}
    return bool(names & {"_native_multi_head_attention", "_transformer_encoder_layer_fwd"})


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.MultiheadAttention(4, 2, batch_first=True),
        lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True),
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 2),
    ],
)
def test_attention_is_plain_in_this_thread_alone(make):
    model = make().eval()
    enabled = torch.backends.mha.get_fastpath_enabled()
    with ThreadPoolExecutor(1) as other:
        assert _fuses(model)
        with plain_attention(model):
            assert not _fuses(model)
            assert other.submit(_fuses, model).result()
            assert torch.backends.mha.get_fastpath_enabled() == enabled
        assert _fuses(model)
        with plain_attention(nn.Linear(2, 2)):
            assert _fuses(model), "only models that hold attention pay for the mode"


def test_a_compiled_function_does_not_compile_the_mode():
    image, seen = torch.rand(2, 3), []

    def backend(graph, _):
        seen.append([node.name for node in graph.graph.nodes])
        return graph.forward

    @torch.compile(backend=backend)
    def double(x):
        return x + x

    double(image)  # Loads the compiler.
    seen.clear()
    with torch.inference_mode(), _Names() as mode:
        double(image)
    assert [name for name, _ in mode.seen] == ["add"]
    assert all("name_of" not in name for names in seen for name in names)
    assert type(mode) is not _Names
    assert isinstance(mode, _Names)
