import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune, spectral_norm, weight_norm

import flyweight as fw
from flyweight.graph import trace
from flyweight.graph.cutting import (
    cut_tensors,
    narrowed,
    numbers_in,
    set_numbers,
    zero_reads,
)
from flyweight.graph.stored import clone_structure
from flyweight.pruning.verification import largest_error


def test_every_holder_and_the_attributes_follow():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1, groups=4))
    model.mask = torch.arange(4.0)
    gone = {0: (1, 2)}
    names = ["0.weight", "0.bias", *(f"1.{n}" for n in ("weight", "bias", "running_mean"))]
    wanted = model[0].weight[[0, 3]].detach().clone()
    removed = dict.fromkeys([*names, "1.running_var", "2.weight", "2.bias", "mask"], gone)
    cut_tensors(model, removed)
    assert torch.equal(model[0].weight, wanted)
    assert model[0].weight.requires_grad
    assert isinstance(model[0].weight, nn.Parameter)
    assert (model[0].out_channels, model[1].num_features) == (2, 2)
    assert (model[2].groups, model[2].in_channels, model[2].out_channels) == (2, 2, 2)
    assert torch.equal(model.mask, torch.tensor([0.0, 3.0]))
    assert model(torch.rand(1, 3, 2, 2)).shape == (1, 2, 2, 2)


def test_a_shared_tensor_is_cut_once_and_stays_shared():
    model = nn.ModuleList([nn.Linear(3, 4), nn.Linear(3, 4)])
    model[1].weight = model[0].weight
    cut_tensors(model, {"0.weight": {0: (0,)}})
    assert model[0].weight is model[1].weight
    assert model[0].weight.shape == (3, 3)
    assert model[1].out_features == 3


def test_on_the_meta_device_under_its_context():
    with torch.device("meta"):
        model = nn.Linear(3, 4)
        cut_tensors(model, {"weight": {0: (0,), 1: (2,)}, "bias": {0: (0,)}})
    assert model.weight.shape == (3, 2)
    assert (model.in_features, model.out_features) == (2, 3)


class Numbers(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads, self.one, self.on, self.share = 4, 1, True, 0.5
        self.sizes, self.names, self.window = [2, 6], ["a"], (7, 8)
        self.inner = nn.Linear(2, 3)


def test_numbers_are_found_and_set():
    model = nn.Sequential(Numbers())
    held = numbers_in(model[0])
    assert held == {"heads": 4, "sizes[0]": 2, "sizes[1]": 6, "window[0]": 7, "window[1]": 8}
    set_numbers(model, {"0.heads": 2, "0.sizes[1]": 3, "0.window[0]": 5})
    assert (model[0].heads, model[0].sizes, model[0].window) == (2, [2, 3], (5, 8))
    set_numbers(model[0], {"heads": 9})
    assert model[0].heads == 9


@pytest.mark.parametrize(
    "path", ["0.tails[0]", "0.names[0]", "0.on", "0.share", "0._parameters", "0.inner", "1.heads"]
)
def test_only_whole_numbers_are_set(path):
    with pytest.raises(AttributeError):
        set_numbers(nn.Sequential(Numbers()), {path: 2})


@pytest.mark.parametrize(
    ("shape", "change"),
    [
        ((6, 4, 3, 3), lambda t: t.to(memory_format=torch.channels_last)),
        ((6, 4, 3, 3, 3), lambda t: t.to(memory_format=torch.channels_last_3d)),
        ((6, 4), lambda t: t.t().contiguous().t()),
        ((6, 4, 5), lambda t: t.permute(2, 0, 1).contiguous().permute(1, 2, 0)),
        ((6, 1, 3, 3), lambda t: t.to(memory_format=torch.channels_last)),
        ((6, 4, 3, 3), lambda t: t),
        ((6, 4), lambda t: t[:, :1].expand(6, 4)),
    ],
)
def test_the_layout_in_memory_stays(shape, change):
    tensor = change(torch.rand(shape))
    gone = {0: (1, 4), 1: (2,)} if shape[1] > 1 else {0: (1, 4)}
    found = narrowed(tensor, gone)
    wanted = tensor[[0, 2, 3, 5]][:, [0, 1, 3] if shape[1] > 1 else [0]]
    assert torch.equal(found, wanted)
    if 0 not in tensor.stride() and 1 not in shape:
        assert found.stride() == change(wanted.clone()).stride()
        assert narrowed(tensor.to("meta"), gone).stride() == found.stride()


class Marked(nn.Parameter):
    """A kind of parameter that training code knows."""


def test_a_parameter_keeps_all_but_its_channels():
    layer = nn.Conv2d(4, 6, 3).half().to(memory_format=torch.channels_last)
    layer.weight = Marked(layer.weight.detach(), requires_grad=False)
    layer.weight.no_weight_decay, layer.weight.shards = True, ("rows", 2)
    layer.weight.mask = torch.rand(6, 4, 3, 3)
    layer.weight.mean = torch.rand(6)
    layer.bias.grad = torch.arange(6.0).half()
    layer.bias.register_hook(torch.neg)
    old = layer.weight
    cut_tensors(layer, {"weight": {0: (0, 5)}, "bias": {0: (0, 5)}})
    new = layer.weight
    assert type(new) is Marked
    assert (new.dtype, new.requires_grad, new.shape) == (torch.half, False, (4, 4, 3, 3))
    assert new.is_contiguous(memory_format=torch.channels_last)
    assert (new.no_weight_decay, new.shards) == (True, ("rows", 2))
    assert torch.equal(new.mask, old.mask[1:5])
    assert new.mean is old.mean
    assert layer.bias.grad.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert layer.bias.requires_grad
    assert layer.bias._backward_hooks is None


def test_a_buffer_keeps_all_but_its_channels():
    model = nn.Module()
    model.register_buffer("scale", torch.rand(6).double(), persistent=False)
    model.scale.note = "a"
    model.loose = torch.rand(6, requires_grad=True)
    cut_tensors(model, {"scale": {0: (0,)}, "loose": {0: (0,)}})
    assert "scale" not in model.state_dict()
    assert (model.scale.dtype, model.scale.note) == (torch.double, "a")
    assert model.loose.requires_grad
    assert model.loose.is_leaf


def network():
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(8, 4, 1))


def test_a_cut_network_keeps_its_hooks_mode_and_marks():
    model = network().to(memory_format=torch.channels_last)
    seen = []
    model[0].register_forward_hook(lambda *_: seen.append("after"))
    model[3].register_forward_pre_hook(lambda *_: seen.append("before"))
    model[3].register_full_backward_hook(lambda *_: seen.append("back"))
    model[5].register_state_dict_post_hook(lambda *_: seen.append("state"))
    model[1].eval()
    model[5].bias.no_weight_decay = True
    model[0].weight.no_weight_decay = True
    images = torch.rand(2, 3, 8, 8)
    model(images).sum().backward()
    plan = fw.plan(fw.trace(model, (images,)), 0.5)
    small = fw.prune(model, plan)
    assert [module.training for module in small] == [True, False, True, True, True, True]
    assert all(parameter.grad is None for parameter in small.parameters())
    assert small[5].bias.no_weight_decay
    assert small[0].weight.no_weight_decay
    seen.clear()
    small.train()(images).sum().backward()
    small.state_dict()
    assert seen == ["after", "before", "back", "state"]
    wide = [m for m in small if isinstance(m, nn.Conv2d)]
    assert all(m.weight.is_contiguous(memory_format=torch.channels_last) for m in wide)
    fw.prune_(model, plan)
    assert all(p.grad is not None and p.grad.shape == p.shape for p in model.parameters())


def test_values_in_channels_last_are_those_of_the_masked_network():
    torch.manual_seed(0)
    model = network().double().eval().to(memory_format=torch.channels_last)
    images = torch.rand(2, 3, 8, 8).double().to(memory_format=torch.channels_last)
    plan = fw.plan(fw.trace(model, (images,)), 0.5)
    assert largest_error(model, fw.prune(model, plan), plan, (images,)) < 1e-12


LAYERS = {
    "spectral norm": lambda layer: spectral_norm(layer),
    "spectral norm, parametrized": lambda layer: nn.utils.parametrizations.spectral_norm(layer),
    "orthogonal": lambda layer: nn.utils.parametrizations.orthogonal(layer),
    "masks": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
    "symmetric": lambda layer: (
        parametrize.register_parametrization(layer, "weight", Doubled()) or layer
    ),
    "weight norm, parametrized": lambda layer: nn.utils.parametrizations.weight_norm(layer),
    "weight norm": lambda layer: weight_norm(layer),
}


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
@pytest.mark.parametrize("kind", LAYERS)
def test_networks_whose_weights_are_computed_are_traced_and_cut(kind):
    torch.manual_seed(0)
    layers = [LAYERS[kind](nn.Conv2d(3, 8, 3)), nn.ReLU(), LAYERS[kind](nn.Conv2d(8, 6, 3))]
    model = nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(6, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1))
    images = torch.rand(2, 3, 8, 8)
    model(images)
    graph = fw.trace(model.eval(), (images,))
    small = fw.prune(model, fw.plan(graph, 0.5))
    assert small[4].out_channels == 2
    for layer in (small[0], small[2], small[4]):
        assert (layer.out_channels, layer.in_channels) == layer.weight.shape[:2]
    small.train()(images).sum().backward()


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
@pytest.mark.parametrize("kind", ["masks", "weight norm", "weight norm, parametrized", "symmetric"])
def test_attributes_of_layers_with_computed_weights_follow(kind):
    layer = LAYERS[kind](nn.Conv2d(4, 8, 3))
    removed = {}
    for name, tensor in {**dict(layer.named_parameters()), **dict(layer.named_buffers())}.items():
        removed[name] = {0: (1, 2)} if tensor.shape[0] == 8 else {}
    cut_tensors(layer, removed)
    assert (layer.out_channels, layer.in_channels) == (6, 4)
    assert layer.weight.shape == (6, 4, 3, 3)


def test_a_vector_beside_the_weight_is_not_taken_for_it():
    layer = nn.Module()
    layer.in_channels, layer.out_channels, layer.groups = 3, 8, 1
    layer.register_buffer("steps", torch.arange(5.0))
    layer.register_parameter("bank", nn.Parameter(torch.rand(8, 27)))
    cut_tensors(layer, {"steps": {0: (0,)}, "bank": {0: (0, 1)}})
    assert (layer.in_channels, layer.out_channels, layer.groups) == (3, 8, 1)


@pytest.mark.parametrize("kind", ["parameter", "buffer", "attribute", "rows"])
def test_empty_tensors_are_left_alone(kind):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1))
    empty = torch.empty(0)
    if kind == "parameter":
        model.register_parameter("empty", nn.Parameter(empty))
    elif kind == "buffer":
        model.register_buffer("empty", empty)
    elif kind == "attribute":
        model.empty = empty
    else:
        model.register_parameter("empty", nn.Parameter(torch.empty(1, 0, 8)))
    small = fw.prune(model, fw.plan(fw.trace(model, (torch.rand(1, 3, 8, 8),)), 0.5))
    assert small[0].out_channels == 4
    assert small.empty.shape == model.empty.shape


def test_channels_are_zeroed_where_they_are_read_and_the_original_is_left_alone():
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 2, 1))
    group = trace(model, (torch.rand(1, 3, 4, 4),)).groups["0.weight"]
    twin, before = clone_structure(model), model[2].weight.clone()
    zero_reads(twin, [(group.members, 6, [1, 4])])
    assert not twin[2].weight[:, [1, 4]].any()
    assert torch.equal(twin[2].weight[:, [0, 2, 3, 5]], before[:, [0, 2, 3, 5]])
    assert torch.equal(model[2].weight, before)
    assert twin[0].weight is model[0].weight


class OnAGraph(nn.Module):
    """Spreads features over the edges of a graph, whose matrix is sparse."""

    def __init__(self, kind):
        super().__init__()
        self.first, self.last = nn.Linear(6, 16), nn.Linear(16, 4)
        self.register_buffer("edges", getattr(torch.eye(10), kind)())
        self.mixing = nn.Parameter(getattr(torch.eye(16), kind)(), requires_grad=False)
        self.mixes = False

    def forward(self, x):
        found = (self.edges @ self.first(x)).relu()
        return self.last((self.mixing @ found.T).T if self.mixes else found)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.parametrize("kind", ["to_sparse", "to_sparse_csr"])
def test_sparse_tensors_are_left_whole(kind):
    model, rows = OnAGraph(kind).eval(), torch.rand(10, 6)
    small = fw.prune(model, fw.plan(fw.trace(model, (rows,)), 0.5))
    assert small.edges.layout is small.mixing.layout is model.edges.layout
    assert small.first.out_features == 8
    assert small(rows).shape == (10, 4)
    model.mixes = True
    reason = fw.trace(model, (rows,)).groups["first.weight"].reason
    assert reason == "is an axis of a sparse tensor"
