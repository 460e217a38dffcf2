import copy
from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn
from torch.nn import functional

from flyweight.graph import trace
from flyweight.pruning import largest_error, plan, prune
from flyweight.pruning.repair.least_squares import FitSettings, NormalEquations, reconstruct
from flyweight.pruning.repair.norms import reestimate_norms
from flyweight.pruning.repair.repair import output_error

EVERY = FitSettings(rows=10**6, ridges=(0.0,))


@pytest.fixture
def batches():
    torch.manual_seed(0)
    return [torch.randn(n, 3, 9, 9, dtype=torch.float64) for n in (9, 7)]


def cut(model, batches, ratios=0.5):
    made = plan(trace(model, (batches[0],)), ratios)
    return prune(model, made), made


def between(model, batches, end):
    """Return what the first `end` layers make of all images."""
    with torch.no_grad():
        return model[:end](torch.cat(batches))


CONVOLUTIONS = {
    "plain": nn.Conv2d(8, 5, 3),
    "point": nn.Conv2d(8, 5, 1),
    "padded": nn.Conv2d(8, 5, 3, padding=1),
    "stride": nn.Conv2d(8, 5, (3, 2), stride=(2, 1), padding=(0, 1)),
    "dilated": nn.Conv2d(8, 5, 3, dilation=2, padding=2),
    "same": nn.Conv2d(8, 5, (2, 3), padding="same"),
    "valid": nn.Conv2d(8, 5, 3, padding="valid"),
    "reflected": nn.Conv2d(8, 5, 3, padding=1, padding_mode="reflect"),
}


def unfolded(layer, read):
    """Return every patch that `layer` reads as a row: an oracle that knows `functional.unfold`."""
    kernel, dilation = layer.kernel_size, layer.dilation
    spans = [tap * (size - 1) for tap, size in zip(dilation, kernel, strict=True)]
    sides = [0, 0, 0, 0]
    if layer.padding == "same":
        sides = [spans[1] // 2, spans[1] - spans[1] // 2, spans[0] // 2, spans[0] - spans[0] // 2]
    elif layer.padding != "valid":
        sides = [layer.padding[1]] * 2 + [layer.padding[0]] * 2
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = functional.pad(read, sides, mode=mode)
    patches = functional.unfold(padded, kernel, dilation, 0, layer.stride)
    return patches.transpose(1, 2).flatten(0, 1)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_a_convolution_is_what_lstsq_finds(kind, batches):
    torch.manual_seed(1)
    layer = copy.deepcopy(CONVOLUTIONS[kind])
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), layer).double()
    small, made = cut(model, batches)
    found = reconstruct(model, small, made, batches, EVERY)
    rows = unfolded(layer, between(small, batches, 2))
    rows = torch.cat([rows, torch.ones(len(rows), 1, dtype=torch.float64)], 1).numpy()
    wanted = between(model, batches, 3).movedim(1, 3).flatten(0, 2).numpy()
    answer, *_ = scipy.linalg.lstsq(rows, wanted)
    weight = small[2].weight.detach().flatten(1).numpy()
    np.testing.assert_allclose(weight, answer[:-1].T, atol=1e-8)
    np.testing.assert_allclose(small[2].bias.detach().numpy(), answer[-1], atol=1e-8)
    (fit,) = found.layers
    assert (fit.name, fit.rows) == ("2.weight", len(rows))
    left = np.square(rows @ answer - wanted).sum() / np.square(wanted - wanted.mean(0)).sum()
    assert fit.after == pytest.approx(left, abs=1e-9)
    assert fit.before > fit.after > 0


@pytest.mark.parametrize("tokens", [True, False])
def test_a_linear_layer_is_what_lstsq_finds(tokens):
    torch.manual_seed(1)
    batches = [torch.randn(n, 3, 9, 9, dtype=torch.float64) for n in (500, 300)]
    change = nn.Flatten(2) if tokens else nn.Flatten(1)
    first = nn.Linear(81, 8) if tokens else nn.Linear(243, 8)
    model = nn.Sequential(change, first, nn.Tanh(), nn.Linear(8, 4)).double()
    small, made = cut(model, batches)
    reconstruct(model, small, made, batches, EVERY)
    rows = between(small, batches, 3).flatten(0, -2)
    rows = torch.cat([rows, torch.ones(len(rows), 1, dtype=torch.float64)], 1).numpy()
    wanted = between(model, batches, 4).flatten(0, -2).numpy()
    answer, *_ = scipy.linalg.lstsq(rows, wanted)
    np.testing.assert_allclose(small[3].weight.detach().numpy(), answer[:-1].T, atol=1e-8)
    np.testing.assert_allclose(small[3].bias.detach().numpy(), answer[-1], atol=1e-8)


def test_outputs_that_leave_are_not_wanted(batches):
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Conv2d(8, 6, 1), nn.Tanh(), nn.Conv2d(6, 2, 1)
    ).double()
    small, made = cut(model, batches)
    reconstruct(model, small, made, batches, EVERY)
    rows = between(small, batches, 2).movedim(1, 3).flatten(0, 2)
    rows = torch.cat([rows, torch.ones(len(rows), 1, dtype=torch.float64)], 1)
    wanted = between(model, batches, 3)[:, list(made.keep["2.weight"])].movedim(1, 3).flatten(0, 2)
    answer = torch.linalg.lstsq(rows, wanted).solution
    torch.testing.assert_close(small[2].weight.detach().flatten(1), answer[:-1].T)


def test_later_layers_make_up_for_earlier_ones(batches):
    """The second layer is fitted on what the first makes after its own fit."""
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Conv2d(8, 6, 1), nn.Tanh(), nn.Conv2d(6, 2, 1)
    ).double()
    small, made = cut(model, batches)
    fits = reconstruct(model, small, made, batches, EVERY).layers
    assert [fit.name for fit in fits] == ["2.weight", "4.weight"]
    rows = between(small, batches, 4).movedim(1, 3).flatten(0, 2)
    rows = torch.cat([rows, torch.ones(len(rows), 1, dtype=torch.float64)], 1)
    wanted = between(model, batches, 5).movedim(1, 3).flatten(0, 2)
    answer = torch.linalg.lstsq(rows, wanted).solution
    torch.testing.assert_close(small[4].weight.detach().flatten(1), answer[:-1].T)


def test_the_norm_behind_takes_the_constant(batches):
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU()
    )
    model = nn.Sequential(*model, nn.Conv2d(6, 2, 1)).double().eval()
    small, made = cut(model, batches, {"0.weight": 0.5})
    names = list(small.state_dict())
    reconstruct(model, small, made, batches, EVERY)
    assert list(small.state_dict()) == names
    rows = between(small, batches, 2).movedim(1, 3).flatten(0, 2)
    rows = torch.cat([rows, torch.ones(len(rows), 1, dtype=torch.float64)], 1)
    wanted = between(model, batches, 3).movedim(1, 3).flatten(0, 2)
    answer = torch.linalg.lstsq(rows, wanted).solution
    torch.testing.assert_close(small[2].weight.detach().flatten(1), answer[:-1].T)
    torch.testing.assert_close(small[3].running_mean, -answer[-1])


def test_without_room_there_is_no_constant(batches):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 1, bias=False)).double()
    small, made = cut(model, batches)
    reconstruct(model, small, made, batches, EVERY)
    rows = between(small, batches, 2).movedim(1, 3).flatten(0, 2)
    wanted = between(model, batches, 3).movedim(1, 3).flatten(0, 2)
    answer = torch.linalg.lstsq(rows, wanted).solution
    torch.testing.assert_close(small[2].weight.detach().flatten(1), answer.T)


def test_channels_that_others_can_replace_cost_nothing(batches):
    """Every removed channel is a copy of one that stays: the cut is repaired exactly."""
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Conv2d(8, 8, 3, groups=8), nn.SiLU(), nn.Conv2d(8, 2, 1)
    ).double()
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.weight[4:], layer.bias[4:] = layer.weight[:4], layer.bias[:4]
    made = plan(trace(model, (batches[0],)), 0.5, lambda group, _: list(range(group.size, 0, -1)))
    small = prune(model, made)
    reconstruct(model, small, made, batches, replace(EVERY, ridges=(1e-12,)))
    unseen = torch.randn(4, 3, 9, 9, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(small(unseen), model(unseen), rtol=0, atol=1e-8)


def test_a_strong_ridge_changes_nothing(batches):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 1)).double()
    small, made = cut(model, batches)
    before = small[2].weight.detach().clone()
    reconstruct(model, small, made, batches, replace(EVERY, ridges=(1e12,)))
    torch.testing.assert_close(small[2].weight.detach(), before, rtol=0, atol=1e-9)
    assert largest_error(model, small, made, (batches[0],)) > 1e-3, "the constants are still fitted"


def test_few_rows_come_from_all_pictures(batches):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 1)).double()
    small, made = cut(model, batches)
    whole, part = copy.deepcopy(small), copy.deepcopy(small)
    reconstruct(model, whole, made, batches, EVERY)
    (fit,) = reconstruct(model, part, made, batches, replace(EVERY, rows=200)).layers
    assert fit.rows == 16 * 13
    again = copy.deepcopy(small)
    reconstruct(model, again, made, batches, replace(EVERY, rows=200))
    assert torch.equal(again[2].weight, part[2].weight)
    one, other = (layer[2].weight.detach() for layer in (whole, part))
    assert not torch.equal(one, other)
    assert float((one - other).norm() / one.norm()) < 0.2


def test_memory_bounds_the_runs_not_the_result(batches):
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Conv2d(8, 6, 1), nn.Tanh(), nn.Conv2d(6, 2, 1)
    ).double()
    small, made = cut(model, batches)
    twin = copy.deepcopy(small)
    reconstruct(model, small, made, batches, EVERY)
    reconstruct(model, twin, made, batches, replace(EVERY, keep_bytes=1))
    assert all(torch.equal(value, twin.state_dict()[k]) for k, value in small.state_dict().items())


def test_norms_are_measured_on_the_way(batches):
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 1, bias=False)
    )
    model = nn.Sequential(*model, nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 2, 1)).double().eval()
    reestimate_norms(model, batches)
    model[1].running_mean += 0.1
    small, made = cut(model, batches)
    first = small[1].running_mean.clone()
    reconstruct(model, small, made, batches, replace(EVERY, norms=True))
    assert torch.equal(small[1].running_mean, first), "nothing has changed before it"
    reached = between(small, batches, 4)
    torch.testing.assert_close(small[4].running_mean, reached.mean((0, 2, 3)))
    torch.testing.assert_close(small[4].running_var, reached.transpose(0, 1).flatten(1).var(1))


def test_what_cannot_be_fitted_is_said(batches):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 1, groups=2)).double()
    small, made = cut(model, batches)
    found = reconstruct(model, small, made, batches)
    assert found.layers == ()
    assert found.skipped == ("'2.weight' is a grouped convolution",)
    assert reconstruct(model, small, made, []).skipped == ("no images were given",)


def test_inputs_that_never_vary_leave_the_weights():
    equations = NormalEquations(2, 1)
    equations.add(torch.zeros(4, 2), torch.arange(4.0)[:, None])
    start = torch.tensor([[1.0, 2.0]])
    answer = equations.solve(start, 1e-3, intercept=True)
    assert torch.equal(answer.weight, start.double())
    assert answer.constant.tolist() == [1.5]
    assert equations.error(answer) == pytest.approx(1.0)


def test_the_ridge_is_chosen_on_rows_that_were_not_fitted(batches):
    """With fewer rows than weights a fit without a ridge would learn the noise."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(3, 40, 3), nn.ReLU(), nn.Conv2d(40, 6, 3)).double()
    small, made = cut(model, batches)
    unseen = torch.randn(32, 3, 9, 9, dtype=torch.float64)
    errors = {}
    for ridges in ((1e-9,), FitSettings.ridges):
        twin = copy.deepcopy(small)
        settings = replace(EVERY, rows=160, ridges=ridges)
        (fit,) = reconstruct(model, twin, made, batches, settings).layers
        assert fit.rows == 160 < small[2].weight[0].numel()
        errors[ridges] = output_error(model, twin, [unseen])
    assert errors[FitSettings.ridges] < errors[1e-9,]
    assert errors[FitSettings.ridges] < output_error(model, small, [unseen])


def test_a_layer_that_is_best_as_it_is_stays(batches):
    """What was removed is noise that nothing else says anything about, and too little is seen."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Conv2d(8, 2, 1, bias=False)).double()
    with torch.no_grad():
        model[2].weight[:, :4] = 0
    made = plan(trace(model, (batches[0],)), 0.5, lambda group, _: list(range(group.size)))
    small = prune(model, made)
    (fit,) = reconstruct(model, small, made, batches, EVERY).layers
    assert fit.ridge is None
    assert fit.before == fit.after == pytest.approx(0, abs=1e-12)
