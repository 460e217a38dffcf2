from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.engine.runs import (
    SETTINGS,
    CutError,
    assert_same,
    assert_same_run,
    go,
    run_process,
    state_of,
)

from flyweight.engine.hooks import Hook, restore_hooks
from flyweight.errors import CheckpointError


class Counts(Hook):
    count = 0

    def state(self):
        return self.count

    def restore(self, state, change_model):
        self.count = state


def test_a_hook_does_nothing_by_default():
    hook = Hook()
    assert (hook.name, hook.state()) == ("Hook", None)
    hook.restore(None, None)
    hook.before_step(None, 0)
    hook.after_step(None, 1)
    hook.before_evaluation(None, 1)
    hook.after_evaluation(None, 1, {})


def test_states_return_to_their_hooks():
    hooks = [Counts(), Hook(), Counts()]
    restore_hooks(hooks, [("Counts", 1), ("Hook", None), ("Counts", 2)], Path("x"), None)
    assert (hooks[0].count, hooks[2].count) == (1, 2)


def test_other_hooks_are_refused():
    with pytest.raises(
        CheckpointError, match=r"were \['Counts'\] in 'x' and are \[\] now"
    ) as caught:
        restore_hooks([], [("Counts", 1)], Path("x"), None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [{}, {"optimizer": "adamw", "ema_decay": None}],
    ids=["sgd", "adamw"],
)
def test_a_cut_at_a_step_happens_once_and_resumes_to_the_same_bits(toy, tmp_path, changes):
    settings = {**SETTINGS, **changes}
    hook = toy.CutAfter(5)
    model, result = go(toy, tmp_path / "whole", settings, hooks=[hook])
    assert model[0].weight.shape == (3, 3, 3, 3)
    assert_same(dict(model.state_dict()), load_file(result.final_path))
    widths = {(kind, step): width for kind, step, width in hook.calls}
    assert [widths["before", step] for step in range(12)] == 5 * [6] + 7 * [3]
    assert [widths["after", step] for step in range(1, 13)] == 5 * [6] + 7 * [3]
    average = settings["ema_decay"]
    assert [widths["evaluate", step] for step in (4, 8, 12)] == [
        average and width for width in (6, 3, 3)
    ]
    assert widths["evaluated", 12] == ["pictures", "quality"]
    assert len(hook.calls) == 12 + 12 + 3 + 3
    # The last state before the cut is that of step 4, the first one after it that of step 6.
    for cut_at in (5, 7):
        folder = tmp_path / f"cut{cut_at}"
        with pytest.raises(CutError):
            go(toy, folder, settings, cut_at=cut_at, hooks=[toy.CutAfter(5)])
        again = toy.CutAfter(5)
        resumed, _ = go(toy, folder, settings, resume=True, hooks=[again])
        assert_same_run(tmp_path / "whole", folder)
        assert_same(dict(resumed.state_dict()), dict(model.state_dict()))
        saved = {5: 4, 7: 6}[cut_at]
        assert [step for kind, step, _ in again.calls if kind == "after"] == [*range(saved + 1, 13)]
        assert again.plan == hook.plan


def test_a_run_resumes_with_its_own_hooks_only(toy, tmp_path):
    go(toy, tmp_path, SETTINGS, hooks=[toy.CutAfter(5)])
    with pytest.raises(CheckpointError, match="must keep its hooks"):
        go(toy, tmp_path, SETTINGS, resume=True)


@pytest.mark.slow
def test_two_processes_cut_and_adapt_as_one_does(toy, tmp_path):
    settings = {**SETTINGS, "accelerator": "cpu", "clip_norm": None, "steps": 8}
    settings |= {"milestones": (), "log_every": 4}
    task = toy.ToyTask()
    objective = toy.AdaptedObjective(task)
    model = toy.toy_model(norm=False, dropout=0.0)
    options = {"model": model, "task": task, "objective": objective, "hooks": [toy.CutAfter(5)]}
    go(toy, tmp_path / "one", settings, **options)
    done = run_process(tmp_path / "two", {**settings, "devices": 2}, "--plain", "--cut-after", "5")
    # The parent loads the result into its own model, which it has to cut for that.
    assert done.returncode == 0, done.stderr
    final = load_file(tmp_path / "two/model_final.safetensors")
    for name, value in model.state_dict().items():
        torch.testing.assert_close(final[name], value)
    adapted = state_of(tmp_path / "two")["objective_ema"]
    for name, value in objective.modules.state_dict().items():
        torch.testing.assert_close(adapted[name], value)
