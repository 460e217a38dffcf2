import csv
import random
import re
from functools import partial

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
    start_process,
    state_of,
)

import flyweight as fw
from flyweight.config.data import AugmentConfig, DataConfig
from flyweight.config.preprocessing import Preprocessing
from flyweight.config.training import TrainConfig
from flyweight.data.loading import open_set, train_loader, val_loader
from flyweight.engine.fit import fit
from flyweight.engine.run import Loaders
from flyweight.errors import CheckpointError, ConfigError, FlyweightError
from flyweight.quantization.learned_steps import settled, trainable
from flyweight.quantization.quantization_plan import LearnedSteps
from flyweight.tasks.detect import YoloDetection
from flyweight.zoo.specs import create, spec_of


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_run_learns_and_leaves_what_it_promises(toy, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "run"
    model, result = go(toy, folder, {**SETTINGS, "steps": 40})
    assert result.steps == 40
    assert result.last_metrics["pictures"] == toy.IMAGES
    first = float(rows(folder / "logs/metrics.csv")[0]["quality"])
    assert result.best_metrics["quality"] > first
    assert result.best_path == folder / "best_model.safetensors"
    assert result.final_path == folder / "model_final.safetensors"
    assert result.seconds > 0
    assert_same(dict(model.state_dict()), load_file(result.final_path))
    assert [row["step"] for row in rows(folder / "logs/train.csv")] == [
        str(n) for n in range(1, 41)
    ]
    assert list((folder / "logs/tensorboard").iterdir())
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
    shown = capfd.readouterr()
    assert shown.out == ""
    line = r"step \d+/40  (loss [\d.e-]+  lr [\d.e-]+  eta \d:\d\d:\d\d|quality .*)"
    assert all(re.fullmatch(line, text) for text in shown.err.splitlines()), shown.err
    assert len(shown.err.splitlines()) == 40 + 10


def test_the_numbers_of_a_plain_run_are_those_of_a_plain_loop(toy, tmp_path):
    settings = {"steps": 6, "learning_rate": 0.1, "milestones": (4,), "weight_decay": 0.1}
    found, _ = go(toy, tmp_path, settings, model=toy.toy_model(dropout=0.0))
    model, task = toy.toy_model(dropout=0.0), toy.ToyTask()
    weights = [model[0].weight, model[4].weight]
    others = [model[1].weight, model[1].bias, model[4].bias]
    optimizer = torch.optim.SGD(
        [{"params": weights, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
        lr=0.1,
        momentum=0.9,
    )
    for step, batch in enumerate(toy.train_batches(0, 0, 1, steps=6)):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 if step < 4 else 0.01
        optimizer.zero_grad()
        task.loss(model(batch.images), batch)["loss"].backward()
        optimizer.step()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], value, msg=name)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "adamw", "schedule": "cosine", "milestones": (), "ema_decay": None},
        {"precision": "bf16"},
        {"channels_last": False, "patience": 2},
    ],
    ids=["sgd", "adamw", "bf16", "patience"],
)
def test_a_run_cut_anywhere_and_resumed_ends_with_the_same_bits(toy, tmp_path, changes):
    settings = {**SETTINGS, **changes}
    go(toy, tmp_path / "whole", settings)
    for cut_at in (1, 5, 8, 11):
        folder = tmp_path / f"cut{cut_at}"
        with pytest.raises(CutError):
            go(toy, folder, settings, cut_at=cut_at)
        torch.rand(cut_at)
        go(toy, folder, settings, resume=True)
        assert_same_run(tmp_path / "whole", folder)


@pytest.mark.parametrize("saves", [1, 2, 3, 4])
def test_a_run_cut_while_saving_and_resumed_ends_with_the_same_bits(toy, tmp_path, saves):
    calls = []

    def save(model, metrics, path):
        calls.append(path.name)
        if len(calls) == saves:
            raise CutError
        toy.save(model, metrics, path)

    go(toy, tmp_path / "whole", SETTINGS)
    with pytest.raises(CutError):
        go(toy, tmp_path / "cut", SETTINGS, save_model=save)
    go(toy, tmp_path / "cut", SETTINGS, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.slow
def test_a_process_killed_twice_and_resumed_ends_with_the_same_bits(toy, tmp_path):
    go(toy, tmp_path / "whole", SETTINGS)
    assert state_of(tmp_path / "whole")["status"]["best_step"] == 12
    folder = tmp_path / "killed"
    last = random.randint(2, 10)
    with start_process(folder, "--wait", "0.1") as process:
        for line in process.stderr:
            if line.startswith(f"step {last}/12"):
                process.kill()
                break
    assert process.returncode == -9
    with start_process(folder, "--resume", "--die-saving", "best_model.safetensors") as process:
        process.wait()
    assert process.returncode == -9
    with start_process(folder, "--resume") as process:
        told = process.stderr.read()
    assert process.returncode == 0, told
    assert "resumed from" in told
    assert_same_run(tmp_path / "whole", folder)


def test_a_finished_run_resumes_to_its_result(toy, tmp_path):
    _, before = go(toy, tmp_path, SETTINGS)
    model, after = go(toy, tmp_path, SETTINGS, resume=True)
    assert after == before
    assert_same(dict(model.state_dict()), load_file(after.final_path))


def test_resume_may_take_the_state_of_another_folder(toy, tmp_path):
    go(toy, tmp_path / "whole", SETTINGS)
    with pytest.raises(CutError):
        go(toy, tmp_path / "cut", SETTINGS, cut_at=2)
    with pytest.raises(CutError):
        go(toy, tmp_path / "cut", SETTINGS, cut_at=10)
    go(toy, tmp_path / "other", SETTINGS, resume=tmp_path / "cut/state/last.safetensors")
    assert_same(state_of(tmp_path / "whole"), state_of(tmp_path / "other"))


def test_a_new_run_forgets_the_state_of_an_older_one(toy, tmp_path):
    go(toy, tmp_path, SETTINGS)
    with pytest.raises(CutError):
        go(toy, tmp_path, SETTINGS, cut_at=1)
    assert not (tmp_path / "state/last.safetensors").exists()


def test_a_run_of_version_0_1_0_is_not_resumed_but_trained_again(toy, tmp_path):
    old = tmp_path / "state/last.ckpt"
    old.parent.mkdir()
    torch.save({"format": 1}, old)
    with pytest.raises(CheckpointError, match=r"last\.ckpt' is not.*0\.1\.0") as caught:
        go(toy, tmp_path, SETTINGS, resume=True)
    assert "\n" not in str(caught.value)
    go(toy, tmp_path, SETTINGS)
    assert not old.exists()
    go(toy, tmp_path, SETTINGS, resume=True)


def test_an_unknown_option_is_refused(toy, tmp_path):
    with pytest.raises(TypeError, match="'hook'"):
        go(toy, tmp_path, SETTINGS, hook=[])


def test_resume_refuses_another_config(toy, tmp_path):
    go(toy, tmp_path, SETTINGS)
    with pytest.raises(ConfigError, match=r"'learning_rate' was 0\.05 in .* and is 0\.1 now"):
        go(toy, tmp_path, {**SETTINGS, "learning_rate": 0.1}, resume=True)
    go(toy, tmp_path, {**SETTINGS, "log_every": 7, "num_workers": 0}, resume=True)


def test_resume_refuses_another_model(toy, tmp_path):
    go(toy, tmp_path, SETTINGS)
    with pytest.raises(CheckpointError, match=r"'0\.bias' has shape \(6,\) in the model and None"):
        go(toy, tmp_path, SETTINGS, resume=True, model=toy.toy_model(norm=False))


def test_resume_from_nowhere_is_one_line(toy, tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere\.safetensors'. Give") as caught:
        go(toy, tmp_path, SETTINGS, resume=tmp_path / "nowhere.safetensors")
    assert "\n" not in str(caught.value)


def test_a_loss_that_is_not_finite_names_step_and_term(toy, tmp_path):
    with pytest.raises(FlyweightError, match=r"nan in 'small' at step 5 .*learning_rate") as caught:
        go(toy, tmp_path, SETTINGS, task=toy.ToyTask(poison=5))
    assert "\n" not in str(caught.value)
    assert state_of(tmp_path)["status"]["step"] == 4


def test_a_loader_that_ends_early_is_named(toy, tmp_path):
    loaders = Loaders(lambda start, rank, world: [toy.toy_batch(0)] * 2, toy.val_batches)
    with pytest.raises(FlyweightError, match=r"12 batches from step 0 on\. Received: 2"):
        go(toy, tmp_path, SETTINGS, loaders=loaders)


def test_nothing_to_evaluate_does_not_crash(toy, tmp_path):
    loaders = Loaders(partial(toy.train_batches, steps=12), lambda rank, world: [])
    _, result = go(toy, tmp_path, {**SETTINGS, "patience": 2}, loaders=loaders)
    assert result.last_metrics == {}
    assert result.best_path.exists()
    loaders = Loaders(partial(toy.train_batches, steps=12))
    _, result = go(toy, tmp_path / "never", SETTINGS, loaders=loaders)
    assert (result.best_metrics, result.best_path) == (None, None)
    assert result.final_path.exists()


def test_best_weights_are_those_of_the_best_evaluation_and_patience_ends(toy, tmp_path):
    qualities = iter([0.1, float("nan"), 0.5, 0.4, 0.5, 0.9])

    class Metric(toy.ToyMetric):
        def compute(self):
            return {"quality": next(qualities)}

    class Task(toy.ToyTask):
        def metric(self):
            return Metric()

    settings = {**SETTINGS, "evaluate_every": 2, "patience": 2}
    _, result = go(toy, tmp_path, settings, task=Task())
    assert result.best_metrics == {"quality": 0.5}
    assert result.steps == 10
    assert result.last_metrics == {"quality": 0.5}
    status = state_of(tmp_path)["status"]
    assert (status["best_step"], status["idle"]) == (6, 2)
    best, final = load_file(result.best_path), load_file(result.final_path)
    assert not torch.equal(best["0.weight"], final["0.weight"])
    # A run that has lost its patience stays ended.
    _, again = go(toy, tmp_path, settings, task=Task(), resume=True)
    assert again == result


def test_without_ema_the_model_itself_is_evaluated_and_saved(toy, tmp_path):
    settings = {**SETTINGS, "ema_decay": None}
    model, _ = go(toy, tmp_path, settings)
    assert_same(dict(model.state_dict()), dict(state_of(tmp_path)["model"]))
    model_with, _ = go(toy, tmp_path / "ema", SETTINGS)
    assert_same(dict(model_with.state_dict()), dict(state_of(tmp_path / "ema")["ema"]))
    assert not torch.equal(model[0].weight, model_with[0].weight)


def test_a_missing_gpu_is_named(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ConfigError, match="precision '16' needs a GPU"):
        go(toy, tmp_path, {**SETTINGS, "precision": "16"})
    with pytest.raises(ConfigError, match="Received: none"):
        go(toy, tmp_path, {**SETTINGS, "accelerator": "cuda"})
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match=r"number of GPUs here \(2\). Received: 3"):
        go(toy, tmp_path, {**SETTINGS, "devices": 3})


@pytest.mark.slow
def test_two_processes_agree_with_one(toy, tmp_path):
    settings = {**SETTINGS, "accelerator": "cpu", "clip_norm": None, "steps": 8}
    settings |= {"milestones": (), "log_every": 4}
    model, alone = go(toy, tmp_path / "one", settings, model=toy.toy_model(norm=False, dropout=0.0))
    done = run_process(tmp_path / "two", {**settings, "devices": 2}, "--plain")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert all(line.startswith("step ") for line in done.stderr.splitlines()), done.stderr
    together = state_of(tmp_path / "two")["status"]
    assert together["last"]["pictures"] == toy.IMAGES
    assert together["last"] == pytest.approx(alone.last_metrics, rel=1e-5)
    final = load_file(tmp_path / "two/model_final.safetensors")
    for name, value in model.state_dict().items():
        torch.testing.assert_close(final[name], value)


@pytest.mark.slow
def test_an_error_in_one_of_two_processes_is_the_same_one_line(toy, tmp_path):
    settings = {**SETTINGS, "accelerator": "cpu", "devices": 2}
    done = run_process(tmp_path, settings, "--poison", "3")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("flyweight.errors.")
    assert "Received nan in 'small' at step 3" in last


def test_progress_is_reported(toy, tmp_path, recorded_progress):
    with pytest.raises(CutError):
        go(toy, tmp_path, SETTINGS, cut_at=8, progress=recorded_progress)
    events = recorded_progress.events
    assert events[0] == ("start", "step", 12, 0)
    assert events[-1] == ("finish", "step")
    updates = [event for event in events if event[:2] == ("update", "step")]
    assert ("finish", "evaluate") in events
    assert [done for _, _, done, _ in updates] == list(range(1, 9))
    assert all(numbers.keys() == {"loss", "lr"} for *_, numbers in updates)
    recorded_progress.events.clear()
    go(toy, tmp_path, SETTINGS, resume=True, progress=recorded_progress)
    assert recorded_progress.events[0] == ("start", "step", 12, 8)
    assert recorded_progress.notes[0].startswith("resumed from")
    assert len(recorded_progress.notes) == 2


def test_nothing_is_shown_where_nothing_is_wanted(toy, tmp_path, capfd):
    go(toy, tmp_path, SETTINGS, progress=False)
    shown = capfd.readouterr()
    assert shown.out + shown.err == ""


@pytest.mark.slow
def test_the_real_detector_on_digits_resumes_to_the_same_bits(tmp_path):
    augment = AugmentConfig(multi_scale=(64, 96))
    preprocessing = Preprocessing(height=96, width=96)
    data = DataConfig(format="digits", size=96, train_count=12, val_count=4)
    images, unseen = open_set(data, "train"), open_set(data, "val")
    options = {"preprocessing": preprocessing, "batch_size": 2}
    config = TrainConfig(steps=7, evaluate_every=5, checkpoint_every=1, ema_decay=0.9, log_every=1)

    def train(start, rank, world, *, workers=0, end=config.steps):
        batches = train_loader(
            images, augment=augment, steps=end, start_step=start, num_workers=workers, **options
        )
        yield from batches
        if end < config.steps:
            raise CutError

    def run(folder, train, **resume):
        spec = spec_of("yolov3_mobilenet_v1")
        torch.manual_seed(1)
        model = create(spec.name, num_classes=10, width=0.125)
        loaders = Loaders(train, lambda rank, world: val_loader(unseen, **options))
        task = YoloDetection(unseen.labels, spec.geometry)

        def save(model, metrics, path):
            fw.save(model, path, metrics=metrics)

        return fit(model, task, loaders, config, save_dir=folder, save_model=save, **resume)

    result = run(tmp_path / "whole", train)
    with pytest.raises(CutError):
        run(tmp_path / "cut", partial(train, end=3))
    run(tmp_path / "cut", partial(train, workers=1), resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
    assert all(0 <= value <= 1 for value in result.best_metrics.values())
    again = fw.load(result.final_path)
    assert_same(dict(again.state_dict()), load_file(result.final_path))


@pytest.mark.parametrize("method", ["lsq", "pact"])
@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_a_quantized_network_is_trained_and_resumed_with_the_same_bits(
    toy, tmp_path, method, precision
):
    quantized = fw.quantize(toy.toy_model().eval(), toy.toy_batch(*range(toy.IMAGES)).images)
    settings = {**SETTINGS, "precision": precision}

    def model():
        return trainable(quantized, LearnedSteps(method, hold_after=8))

    trained, _ = go(toy, tmp_path / "whole", settings, model=model())
    assert int(trained.weight_quantizers.steps) == settings["steps"]
    for cut_at in (5, 10):
        folder = tmp_path / f"cut{cut_at}"
        with pytest.raises(CutError):
            go(toy, folder, settings, cut_at=cut_at, model=model())
        go(toy, folder, settings, resume=True, model=model())
        assert_same_run(tmp_path / "whole", folder)
    images = toy.toy_batch(0, 1).images
    with torch.no_grad():
        assert torch.equal(settled(trained).eval()(images), trained.eval()(images))
