import copy

import pytest
import torch
import torchvision
from torch import nn

from flyweight.pruning.repair.norms import reestimate_norms


@pytest.fixture
def batches():
    torch.manual_seed(0)
    return [torch.randn(n, 3, 8, 8, dtype=torch.float64) * 2 + 1 for n in (5, 2, 11)]


def deep(seed=0):
    torch.manual_seed(seed)
    layers = []
    for inputs, outputs in ((3, 6), (6, 5), (5, 4)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.SiLU()]
    return nn.Sequential(*layers).double()


def test_every_norm_holds_what_it_sees(batches):
    model = deep()
    assert reestimate_norms(model, batches) == ()
    seen = {}
    for place, layer in enumerate(model):
        if isinstance(layer, nn.BatchNorm2d):
            layer.register_forward_pre_hook(lambda _, x, place=place: seen.update({place: x[0]}))
    with torch.no_grad():
        model.eval()(torch.cat(batches))
    assert len(seen) == 3
    for place, values in seen.items():
        rows = values.transpose(0, 1).flatten(1).numpy()
        torch.testing.assert_close(model[place].running_mean.numpy(), rows.mean(1))
        torch.testing.assert_close(model[place].running_var.numpy(), rows.var(1, ddof=1))


def test_one_batch_is_what_torch_estimates():
    torch.manual_seed(0)
    images = [torch.randn(64, 3, 16, 16, dtype=torch.float64)]
    ours, theirs = deep(), deep()
    reestimate_norms(ours, images)
    torch.optim.swa_utils.update_bn(images, theirs)
    for layer, other in zip(ours, theirs, strict=True):
        if isinstance(layer, nn.BatchNorm2d):
            # Deeper down torch has divided by n where its running variance divides by n - 1.
            torch.testing.assert_close(layer.running_mean, other.running_mean, rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(layer.running_var, other.running_var, rtol=1e-3, atol=0)
    torch.testing.assert_close(ours[1].running_mean, theirs[1].running_mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(ours[1].running_var, theirs[1].running_var, rtol=0, atol=1e-12)


def test_nothing_else_changes(batches):
    model = deep().train()
    model[4].eval()
    model[4].momentum = 0.3
    before = copy.deepcopy(model)
    reestimate_norms(model, batches)
    assert [layer.training for layer in model] == [layer.training for layer in before]
    assert model[4].momentum == 0.3
    changed = {
        name
        for name, value in model.state_dict().items()
        if not torch.equal(value, before.state_dict()[name])
    }
    assert changed == {f"{place}.running_{what}" for place in (1, 4, 7) for what in ("mean", "var")}


def test_only_some(batches):
    model = deep()
    reestimate_norms(model, batches, only={"4"})
    assert torch.equal(model[1].running_mean, torch.zeros(6, dtype=torch.float64))
    assert not torch.equal(model[4].running_mean, torch.zeros(5, dtype=torch.float64))


def test_what_cannot_be_done_is_said(batches):
    shared = nn.BatchNorm2d(3)
    model = nn.Sequential(shared, nn.Conv2d(3, 3, 1), shared, nn.BatchNorm2d(3, affine=False))
    model.spare = nn.BatchNorm2d(3)
    model.forward = lambda x: model[3](model[2](model[1](model[0](x))))
    skipped = reestimate_norms(model.double(), batches)
    assert skipped == ("'spare' is not reached", "'0' is used more than once")
    assert torch.equal(shared.running_mean, torch.zeros(3, dtype=torch.float64))
    assert not torch.equal(model[3].running_mean, torch.zeros(3, dtype=torch.float64))


def test_no_pictures_change_nothing():
    model = deep()
    before = copy.deepcopy(model.state_dict())
    reestimate_norms(model, [])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_whole_network_with_and_without_memory():
    torch.manual_seed(0)
    model = torchvision.models.shufflenet_v2_x0_5()
    twin = copy.deepcopy(model)
    images = [torch.randn(3, 3, 33, 33), torch.randn(2, 3, 33, 33)]
    reestimate_norms(model, images)
    reestimate_norms(twin, images, keep_bytes=0)
    assert all(
        torch.equal(value, twin.state_dict()[name]) for name, value in model.state_dict().items()
    )
