import pytest
import torch
from torch import nn

from flyweight.graph import trace
from flyweight.pruning import plan, prune_

IMAGES = torch.rand(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def network():
    torch.manual_seed(0)
    # No bias before the normalisation: its gradient is rounding alone, which Adam blows up.
    first = nn.Conv2d(3, 8, 3, bias=False)
    body = nn.Sequential(first, nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3))
    return nn.Sequential(body, nn.Flatten(), nn.Linear(24, 2))


def step(model, optimizer):
    optimizer.zero_grad()
    model(IMAGES).square().sum().backward()
    optimizer.step()


MAKERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, 0.01, momentum=0.9, weight_decay=0.01),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, 0.01, amsgrad=True),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, 0.01, momentum=0.5),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_training_goes_on_as_if_the_removed_had_never_been(kind):
    """A network whose removed channels are dead trains the others just as the cut one does."""
    model = network()
    made = plan(trace(model, (IMAGES[:1],)), 0.5)
    removed = made.removed()
    dead = network()
    for name, parameter in dead.named_parameters():
        for axis, gone in removed.get(name, {}).items():
            parameter.data.index_fill_(axis, torch.tensor(gone), 0)
            parameter.register_hook(_without(axis, gone))
    model.load_state_dict(dead.state_dict())
    alive = MAKERS[kind](dead.parameters())
    optimizer = MAKERS[kind](model.parameters())
    # Both see the dead network's gradients first, so that there is state to take along.
    step(dead, alive)
    for own, other in zip(model.parameters(), dead.parameters(), strict=True):
        own.grad = other.grad.clone()
    optimizer.step()
    model.load_state_dict(dead.state_dict())

    prune_(model, made, optimizer)
    for _ in range(3):
        step(dead, alive)
        step(model, optimizer)
    for name, parameter in model.named_parameters():
        wanted = dict(dead.named_parameters())[name]
        for axis, gone in removed.get(name, {}).items():
            keep = [i for i in range(wanted.shape[axis]) if i not in gone]
            wanted = wanted.index_select(axis, torch.tensor(keep))
        torch.testing.assert_close(parameter, wanted, rtol=1e-4, atol=1e-6)


def _without(axis, gone):
    return lambda grad: grad.index_fill(axis, torch.tensor(gone), 0)


def test_groups_and_foreign_parameters_stay():
    model, other = network(), nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD(
        [{"params": model[0].parameters(), "lr": 0.1}, {"params": [*model[2].parameters(), other]}],
        0.01,
        momentum=0.9,
    )
    step(model, optimizer)
    prune_(model, plan(trace(model, (IMAGES[:1],)), 0.5), optimizer)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.01]
    assert optimizer.param_groups[1]["params"][-1] is other
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in [*model.parameters(), other]}
    momentum = optimizer.state[model[0][0].weight]["momentum_buffer"]
    assert momentum.shape == model[0][0].weight.shape == (4, 3, 3, 3)
    assert not any(key.shape == (8, 3, 3, 3) for key in optimizer.state)


KINDS = {
    **MAKERS,
    "adafactor": torch.optim.Adafactor,
    "adadelta": torch.optim.Adadelta,
    "rprop": torch.optim.Rprop,
    "lbfgs": torch.optim.LBFGS,
    "nadam": torch.optim.NAdam,
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_optimizer_goes_on_after_a_cut(kind):
    model = network()
    optimizer = KINDS[kind](model.parameters())

    def loss():
        optimizer.zero_grad()
        value = model(IMAGES).square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    prune_(model, plan(trace(model, (IMAGES[:1],)), 0.5), optimizer)
    before = model[0][0].weight.detach().clone()
    optimizer.step(loss)
    assert not torch.equal(model[0][0].weight, before)


def test_factored_state_is_cut_along_the_axes_it_has():
    model = network()
    optimizer = torch.optim.Adafactor(model.parameters())
    step(model, optimizer)
    rows = optimizer.state[model[0][3].weight]["row_var"].clone()
    made = plan(trace(model, (IMAGES[:1],)), 0.5)
    prune_(model, made, optimizer)
    gone = made.removed()["0.3.weight"]
    keep = [index for index in range(8) if index not in gone[1]]
    own = [index for index in range(6) if index not in gone.get(0, ())]
    found = optimizer.state[model[0][3].weight]["row_var"]
    assert torch.equal(found, rows[own][:, keep])


def test_a_state_of_another_form_begins_again():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    step(model, optimizer)
    optimizer.state[model[0][0].weight]["factor"] = torch.ones(8, 8)
    optimizer.state[model[0][3].weight]["history"] = [torch.ones(6, 8, 3, 3)]
    prune_(model, plan(trace(model, (IMAGES[:1],)), 0.5), optimizer)
    assert model[0][0].weight not in optimizer.state
    assert model[0][3].weight not in optimizer.state
    assert model[0][1].weight in optimizer.state
    step(model, optimizer)
