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
    fused = torch.backends.mha.get_fastpath_enabled()
    with evaluating(model):
        assert not any(module.training for module in model.modules())
        assert torch.is_inference_mode_enabled()
        assert not torch.backends.mha.get_fastpath_enabled()
    assert [module.training for module in model] == [True, False]
    with plain_attention():
        assert not torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.mha.get_fastpath_enabled() == fused
