import functools

import pytest
import torch
from torch import nn

import flyweight as fw
from flyweight.errors import FlyweightError, GraphError
from flyweight.graph.entry import plain_module

IMAGES = torch.rand(1, 3, 8, 8)
EAGER = functools.partial(torch.compile, backend="eager")


class Net(nn.Module):
    def __init__(self, inner=None):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 4, 1)
        self.inner = nn.Conv2d(16, 16, 3) if inner is None else inner

    def forward(self, x):
        return self.last(self.inner(self.first(x)).relu())


def in_place(model):
    model.compile(backend="eager")
    return model


def with_compiled_forward(model):
    model.forward = EAGER(model.forward)
    return model


def with_compiled_inner(model):
    model.inner.compile(backend="eager")
    return model


WRAPPED = {
    "compiled": lambda: EAGER(Net()),
    "compiled sequence": lambda: EAGER(nn.Sequential(Net())),
    "compiled in place": lambda: in_place(Net()),
    "compiled forward": lambda: with_compiled_forward(Net()),
    "parallel": lambda: nn.DataParallel(Net()),
    "compiled and parallel": lambda: EAGER(nn.DataParallel(EAGER(Net()))),
    "compiled part": lambda: Net(EAGER(nn.Conv2d(16, 16, 3))),
    "part compiled in place": lambda: with_compiled_inner(Net()),
    "parallel part": lambda: Net(nn.DataParallel(nn.Conv2d(16, 16, 3))),
    "scripted activation": lambda: Net(torch.jit.script(nn.ReLU())),
    "scripted function": lambda: Net(torch.jit.script(swish)),
    "compiled function": lambda: Net(compiled_swish),
    "in the form of a graph": lambda: torch.fx.symbolic_trace(Net()),
    "ready for quantization": lambda: Net(Summed()),
}


def swish(x: torch.Tensor) -> torch.Tensor:
    return x * x.sigmoid()


@EAGER
def compiled_swish(x):
    return x * x.sigmoid()


class Summed(nn.Module):
    def __init__(self):
        super().__init__()
        self.join = torch.ao.nn.quantized.FloatFunctional()

    def forward(self, x):
        return self.join.add(x, x)


@pytest.mark.filterwarnings("ignore")  # Of PyTorch, about its older parts.
@pytest.mark.parametrize("name", WRAPPED)
def test_what_is_inside_of_a_wrapper_is_cut(name):
    torch.manual_seed(0)
    model = WRAPPED[name]().eval()
    graph = fw.trace(model, (IMAGES,))
    freed = [group for group in graph.prunable() if group.endswith("first.weight")]
    assert len(freed) == 1
    plan = fw.plan(graph, {freed[0]: 0.5})
    small = fw.prune(model, plan)
    wide = model(IMAGES)
    assert small(IMAGES).shape == wide.shape
    assert dict(small.named_parameters())[freed[0]].shape[0] == 8
    again = fw.trace(small, (IMAGES,))
    assert again.cost().params == plan.cost(graph).params
    torch.testing.assert_close(model(IMAGES), wide)  # The wrapped model still runs whole.
    fw.prune_(model, plan)
    torch.testing.assert_close(model(IMAGES), small(IMAGES))


def test_groups_have_the_names_of_the_plain_module():
    model = Net()
    names = list(fw.trace(model, (IMAGES,)).groups)
    assert list(fw.trace(EAGER(nn.DataParallel(model)), (IMAGES,)).groups) == names
    assert plain_module(EAGER(model)) is model


class Doubling(nn.DataParallel):
    def forward(self, *inputs):
        return 2 * super().forward(*inputs)


def test_a_wrapper_with_code_of_its_own_is_kept():
    model = Doubling(Net())
    assert plain_module(model) is model
    assert "module.first.weight" in fw.trace(model, (IMAGES,)).groups


def scripted():
    return torch.jit.script(Net())


def quantized():
    return torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(3, 4)), {nn.Linear})


REFUSED = {
    "scripted": (scripted, "torch.jit) of RecursiveScriptModule. Give the plain module"),
    "traced": (lambda: torch.jit.trace(Net(), IMAGES), "Give the plain module"),
    "scripted part": (lambda: Net(torch.jit.script(nn.Conv2d(16, 16, 3))), "at 'inner' of Net"),
    "quantized": (quantized, "Received a quantized module at '0'"),
    "lazy": (lambda: Net(nn.LazyConv2d(16, 3)), "without a shape (of a lazy module) at 'inner."),
    "function": (lambda: swish, "an object of type builtins.function"),
    "path": (lambda: "small.safetensors", "Load the file first"),
    "class": (lambda: Net, "Give an instance of the class"),
    "exported": (
        lambda: torch.export.export(Net().eval(), (IMAGES,)),
        "Give the module that it was exported from",
    ),
    "nothing": (lambda: None, "an object of type builtins.NoneType"),
}


@pytest.mark.filterwarnings("ignore")  # Of PyTorch, about its older parts.
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_followed_is_refused_in_one_line(name, tmp_path):
    make, text = REFUSED[name]
    model = make()
    with pytest.raises(GraphError) as caught:
        fw.trace(model, (IMAGES,))
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)
    plan = fw.plan(fw.trace(Net(), (IMAGES,)), 0.5)
    for use in (
        lambda: fw.prune(model, plan),
        lambda: fw.prune_(model, plan),
        lambda: fw.export(model, tmp_path / "m.onnx", example=(IMAGES,)),
        lambda: fw.save(model, tmp_path / "m.safetensors"),
    ):
        with pytest.raises(FlyweightError):
            use()


def test_a_lazy_module_is_taken_once_it_has_run():
    model = Net(nn.LazyConv2d(16, 3))
    model(IMAGES)
    assert fw.prune(model, fw.plan(fw.trace(model, (IMAGES,)), 0.5)).inner.out_channels == 8
