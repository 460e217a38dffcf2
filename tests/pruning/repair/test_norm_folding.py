"""Exact corrections, against the dense network in float64 and formulas written out here."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import flyweight as fw
from flyweight.graph.dispatch import evaluating
from flyweight.origin import Origin, note_origin, origin_of
from flyweight.pruning import PruningPlan
from flyweight.pruning.repair.layers import surroundings
from flyweight.pruning.repair.norm_folding import folds_of
from flyweight.pruning.repair.repair import RepairSettings, repair

CHANNELS = 12
KEEP = (0, 2, 3, 5, 6, 7, 9, 11)
GONE = (1, 4, 8, 10)


class Normed(nn.Module):
    """Two layers make channels that a normalisation mixes; one reads them."""

    def __init__(self, norm):
        super().__init__()
        self.make = nn.Linear(5, CHANNELS)
        self.more = nn.Linear(5, CHANNELS)
        self.norm = norm
        self.read = nn.Linear(CHANNELS, 3)

    def forward(self, x):
        return self.read(self.norm(self.make(x) + self.more(x)))


class Maps(nn.Module):
    """The same with convolutions and a GroupNorm of three blocks."""

    def __init__(self):
        super().__init__()
        self.make = nn.Conv2d(2, CHANNELS, 3, padding=1)
        self.norm = nn.GroupNorm(3, CHANNELS)
        self.read = nn.Conv2d(CHANNELS, 3, 1)

    def forward(self, x):
        return self.read(self.norm(self.make(x)))


def with_constants(model, values, gone=GONE):
    """Make removed channels constants."""
    with torch.no_grad():
        for part in (model.make, getattr(model, "more", None)):
            if part is not None:
                part.weight[list(gone)] = 0
                part.bias[list(gone)] = 0
        model.make.bias[list(gone)] = torch.as_tensor(values, dtype=torch.float64)
        model.norm.weight.uniform_(0.5, 2)
        if getattr(model.norm, "bias", None) is not None:
            model.norm.bias.uniform_(-1, 1)
    return model


def centre(model, mean, blocks=(KEEP,)):
    """Make the channels that stay have this mean everywhere."""
    with torch.no_grad():
        for part in (model.make, getattr(model, "more", None)):
            for block in blocks if part is not None else ():
                part.weight[list(block)] -= part.weight[list(block)].mean(0)
                part.bias[list(block)] -= part.bias[list(block)].mean()
        for block in blocks:
            model.make.bias[list(block)] += mean
    return model


def cut(model, x, keep=KEEP):
    graph = fw.trace(model, (x,))
    (name,) = [group.name for group in graph.groups.values() if group.mixes]
    plan = PruningPlan.of(graph, {name: keep[: graph.groups[name].size]}, "by hand")
    assert not plan.exact
    return plan, fw.prune(model, plan)


def rows():
    return torch.randn(40, 5, dtype=torch.float64)


def largest(one, other, x):
    with torch.inference_mode():
        return float((one.eval()(x) - other.eval()(x)).abs().max())


ALONE = RepairSettings(reconstruct=False)


@pytest.mark.parametrize("values", [0.0, (0.7, -1.3, 2.0, 0.1)])
def test_rms_norm_is_exact_for_any_constants(values):
    torch.manual_seed(0)
    model = with_constants(Normed(nn.RMSNorm(CHANNELS, eps=1e-2)).double(), values)
    x = rows()
    plan, small = cut(model, x)
    assert largest(model, small, x) > 1e-2
    images = [rows() for _ in range(4)]
    folded, report = repair(model, small, plan, images, ALONE)
    (fit,) = report.steps[2].norms
    squares = sum(v * v for v in values) if values else 0.0
    assert fit.how == "folded"
    assert folded.norm.eps == pytest.approx((12 * 1e-2 + squares) / 8, rel=1e-12)
    kept = model.norm.weight.detach()[list(KEEP)] * 1.5**0.5
    torch.testing.assert_close(folded.norm.weight.detach(), kept, rtol=1e-12, atol=0)
    # What the layer behind the norm reads of removed channels: zeros for zeros only.
    if not values:
        assert largest(model, folded, rows()) < 1e-12
    with evaluating(model, folded):
        made = model.make(x) + model.more(x)
        wanted = model.norm(made)[:, list(KEEP)]
        found = folded.norm(made[:, list(KEEP)])
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def test_layer_norm_of_a_centred_network_is_exact():
    torch.manual_seed(0)
    model = centre(with_constants(Normed(nn.LayerNorm(CHANNELS)).double(), 0.0), 0.0)
    x = rows()
    plan, small = cut(model, x)
    assert largest(model, small, x) > 1e-2
    folded, report = repair(model, small, plan, [rows() for _ in range(4)], ALONE)
    (fit,) = report.steps[2].norms
    assert (fit.how, fit.before > 1e-3, fit.after < 1e-14) == ("folded", True, True)
    # The offsets of the removed channels are constants behind the norm, folded into the reader.
    assert report.steps[1].done == "4 constants into 1 layers, 1 of them exactly"
    assert largest(model, folded, rows()) < 1e-12


def test_layer_norm_with_constants_around_the_mean():
    torch.manual_seed(0)
    model = centre(with_constants(Normed(nn.LayerNorm(CHANNELS)).double(), (1.5, 0.5, 3, -1)), 1.0)
    x = rows()
    plan, small = cut(model, x)
    around = surroundings(model, small, plan, (x,))
    (fold,) = folds_of(model, plan, around.channel_norms, [(x,)]).values()
    squares = 0.25 + 0.25 + 4 + 4
    assert fold.gain == pytest.approx(1.5**0.5, rel=1e-12)
    assert fold.epsilon == pytest.approx((12e-5 + squares) / 8, rel=1e-12)
    made = (model.make(x) + model.more(x)).detach()
    kept = made[:, list(KEEP)]
    wanted = model.norm(made)[:, list(KEEP)].detach()
    scale, offset = model.norm.weight[list(KEEP)] * fold.gain, model.norm.bias[list(KEEP)]
    found = functional.layer_norm(kept, (8,), scale, offset, fold.epsilon).detach()
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def test_group_norm_in_blocks():
    torch.manual_seed(0)
    gone, keep = (1, 5, 9), tuple(c for c in range(CHANNELS) if c not in (1, 5, 9))
    blocks = (keep[0:3], keep[3:6], keep[6:9])
    model = centre(with_constants(Maps().double(), 0.0, gone), 0.0, blocks)
    x = torch.randn(6, 2, 5, 7, dtype=torch.float64)
    plan, small = cut(model, x, (0, 2, 3))
    assert plan.removed()["norm.weight"] == {0: gone}
    assert largest(model, small, x) > 1e-2
    folded, report = repair(model, small, plan, [x, x.flip(0)], ALONE)
    assert report.steps[2].norms[0].how == "folded"
    assert folded.norm.eps == pytest.approx(1e-5 * 4 / 3, rel=1e-12)
    assert largest(model, folded, torch.randn_like(x)) < 1e-12


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda model: model, id="another mean than the constants"),
        pytest.param(lambda model: centre(model, 0.3), id="centred elsewhere"),
    ],
)
def test_layer_norm_that_is_not_exact_is_fitted(change):
    torch.manual_seed(0)
    model = change(with_constants(Normed(nn.LayerNorm(CHANNELS)).double(), 0.0))
    x = rows()
    plan, small = cut(model, x)
    around = surroundings(model, small, plan, (x,))
    assert folds_of(model, plan, around.channel_norms, [(x,)]) == {}
    fitted, report = repair(model, small, plan, [rows() for _ in range(8)], ALONE)
    (fit,) = report.steps[2].norms
    assert fit.how == "fitted"
    assert 0 < fit.after < 0.7 * fit.before
    assert fitted.norm.eps == model.norm.eps
    _, report = repair(model, small, plan, [rows() for _ in range(8)])
    assert report.steps[3].error < 0.5 * report.steps[0].error


def build(channels):
    """Return a network that a file names."""
    assert channels == CHANNELS
    return Normed(nn.RMSNorm(channels)).double()


def test_a_file_keeps_the_epsilon(tmp_path):
    torch.manual_seed(0)
    model = with_constants(build(CHANNELS), 0.0)
    note_origin(model, Origin(f"{__name__}:build", {"channels": CHANNELS}))
    x = rows()
    plan, small = cut(model, x)
    folded, _ = repair(model, small, plan, [rows() for _ in range(4)], ALONE)
    path = tmp_path / "folded.safetensors"
    fw.save(folded, path, task="classify", labels=("a", "b", "c"), preprocessing={})
    loaded = fw.load(path, build=build)
    assert (small.norm.eps, loaded.norm.eps) == (None, folded.norm.eps)
    assert largest(model, loaded, rows()) < 1e-12
    # A reader that does not know this kind refuses the file.
    assert [(one.kind, one.version) for one in origin_of(folded).transforms] == [
        ("prune", 1),
        ("repair", 1),
        ("epsilons", 1),
    ]


def test_channels_that_vary_are_never_folded():
    torch.manual_seed(0)
    model = Normed(nn.RMSNorm(CHANNELS)).double()
    x = rows()
    plan, small = cut(model, x)
    around = surroundings(model, small, plan, (x,))
    assert folds_of(model, plan, around.channel_norms, [(x,)]) == {}


def test_an_epsilon_that_the_code_holds_is_left_alone():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(CHANNELS))

        def forward(self, x):
            return functional.rms_norm(x, (x.shape[-1],), self.weight, 1e-3)

    torch.manual_seed(0)
    model = with_constants(Normed(Own()).double(), 0.0)
    x = rows()
    plan, small = cut(model, x)
    fitted, report = repair(model, small, plan, [rows() for _ in range(8)], ALONE)
    (fit,) = report.steps[2].norms
    assert (fit.name, fit.how) == ("norm.weight", "fitted")
    # The root of the number of channels is most of the correction, the epsilon a thousandth.
    wanted = model.norm.weight.detach()[list(KEEP)] * 1.5**0.5
    torch.testing.assert_close(fitted.norm.weight.detach(), wanted, rtol=5e-3, atol=0)
