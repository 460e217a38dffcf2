import pytest
import torch
from safetensors.torch import load_file
from tests.engine.runs import SETTINGS, CutError, assert_same, assert_same_run, go, state_of
from torch import nn

from flyweight.engine.objective import Objective, TaskObjective
from flyweight.errors import CheckpointError


def test_an_objective_must_have_a_loss():
    with pytest.raises(NotImplementedError):
        Objective().loss(nn.Linear(1, 1), None)


def test_a_task_alone_is_an_objective_without_modules(toy):
    task, batch = toy.ToyTask(), toy.toy_batch(1, 2)
    model = toy.toy_model(dropout=0.0)
    objective = TaskObjective(task)
    assert objective.modules is objective.fixed is None
    found, expected = objective.loss(model, batch), task.loss(model(batch.images), batch)
    assert found.keys() == expected.keys()
    torch.testing.assert_close(found["loss"], expected["loss"])


@pytest.mark.parametrize("ema_decay", [0.9, None], ids=["average", "plain"])
def test_modules_of_an_objective_learn_and_resume_to_the_same_bits(toy, tmp_path, ema_decay):
    settings = {**SETTINGS, "ema_decay": ema_decay}

    def start(folder, **options):
        task = toy.ToyTask()
        objective = toy.AdaptedObjective(task)
        before = {name: value.clone() for name, value in objective.modules.state_dict().items()}
        model, _ = go(toy, folder, settings, task=task, objective=objective, **options)
        assert objective.attached == [model]
        return objective, before

    objective, before = start(tmp_path / "whole")
    state = state_of(tmp_path / "whole")
    after = objective.modules.state_dict()
    assert not any(torch.equal(after[name], before[name]) for name in ("0.weight", "2.bias"))
    assert_same(dict(after), dict(state["objective_ema" if ema_decay else "objective"]))
    assert (state["objective_ema"] is None) == (ema_decay is None)
    # They are no part of the checkpoint, and have a learning rate of their own.
    final = load_file(tmp_path / "whole/model_final.safetensors")
    assert final.keys() == toy.toy_model().state_dict().keys()
    rates = {group["factor"] for group in state["optimizer"]["param_groups"]}
    assert rates == {1.0, 0.5}
    for cut_at in (7,):
        folder = tmp_path / f"cut{cut_at}"
        with pytest.raises(CutError):
            start(folder, cut_at=cut_at)
        resumed, _ = start(folder, resume=True)
        assert_same_run(tmp_path / "whole", folder)
        assert_same(dict(resumed.modules.state_dict()), dict(after))


def test_a_state_without_the_modules_of_the_objective_is_refused(toy, tmp_path):
    go(toy, tmp_path, SETTINGS)
    objective = toy.AdaptedObjective(toy.ToyTask())
    with pytest.raises(CheckpointError, match=r"'0\.bias' has shape \(4,\) in the model and None"):
        go(toy, tmp_path, SETTINGS, resume=True, objective=objective)
