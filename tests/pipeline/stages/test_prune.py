import json
import shutil
from dataclasses import replace

import pytest
from safetensors.torch import load_file, save_file

import flyweight as fw
from flyweight import pipeline
from flyweight.checkpoint import read
from flyweight.config.cuts import RatioCut
from flyweight.config.reading import load_config
from flyweight.digests import digest_of_weights
from flyweight.errors import CheckpointError, FlyweightError, MeasureError
from flyweight.origin import Parent
from flyweight.pipeline.inputs import open_data
from flyweight.pipeline.network_plans import build_model, prune_model
from flyweight.pipeline.setting_files import digest_of_checkpoint
from flyweight.pipeline.stages import prune as stage
from flyweight.pipeline.stages.prune import measured_criterion
from flyweight.sensitivity import Point, Sensitivity

LAYER = "yolo_block.0.0.0.conv.weight"
SMALL = ("width=0.1", "input_size=64", "data.size=64", "data.val_count=3")


def test_taylor_is_measured_on_training_pictures():
    config = load_config("demo_digits", (*SMALL, "data.train_count=8", "train.batch_size=4"))[1]
    model, data = build_model(config), open_data(config)
    layer = "yolo_block.0.0.0.conv.weight"
    cut = RatioCut((layer,), (0.5,), "taylor")
    measured = measured_criterion(model, config, data, cut)
    small, made = prune_model(model, config.preprocessing, cut, measured)
    assert made.criterion == "taylor"
    assert small.get_parameter(layer).shape[0] == model.get_parameter(layer).shape[0] // 2
    assert model.training
    assert measured_criterion(model, config, data, RatioCut((layer,), (0.5,))) is None


def test_a_network_is_pruned_from_python(config_of, dense, notes, tmp_path):
    config = config_of(f"weights={dense}", "prune.repair=true", "prune.repair_images=4")
    options = pipeline.PruneOptions(evaluate=True, evaluate_repair=True)
    found = pipeline.prune("run", config, options, progress=notes)
    folder = tmp_path / "output" / "run"
    assert found.checkpoint == folder / "best_model.safetensors"
    assert found.plan_file.read_text() == found.plan.to_json()
    assert found.after.macs < found.before.macs
    assert found.repair[0].name == "cut"
    assert f"weights: {dense}" in notes.said
    assert any(line.startswith("before fine-tuning\nmap_50") for line in notes.said)
    assert fw.load(found.checkpoint).get_parameter(LAYER).shape[0] == 24
    note = json.loads((folder / "prune.done.json").read_text())
    assert note["parts"] == ["plan.json", "pruned.safetensors"]
    assert note["made_from"]["weights of train"] == digest_of_checkpoint(dense)
    saved = read(found.checkpoint)
    assert saved.parents == (Parent("dense", digest_of_weights(load_file(dense))),)
    assert [one.kind for one in saved.transforms] == ["prune", "repair"]
    record = saved.metric_records["map_50"]
    assert (record.data, len(record.date)) == ("digits/val", 10)


def test_without_weights_the_folders_dense_network_is_cut_and_never_the_pruned_one(
    config_of, dense, notes, tmp_path
):
    options = pipeline.PruneOptions(finetune=False)
    best = tmp_path / "output" / "run" / "best_model.safetensors"
    with pytest.raises(CheckpointError, match=r"no weights, and '.*best_model.safetensors' does"):
        pipeline.prune("run", config_of(), options)
    best.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(dense, best)
    first = pipeline.prune("run", config_of(), progress=notes)
    assert f"weights: {best}" in notes.said
    assert len(read(best).plans) == 1
    again = pipeline.prune("run", config_of(), options, progress=notes)
    assert f"weights: {best.with_name('before_pruning.safetensors')}" in notes.said
    assert (again.before, again.plan) == (first.before, first.plan)
    best.with_name("before_pruning.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"best_model.safetensors' is pruned already"):
        pipeline.prune("run", config_of(), options)


def test_weights_that_do_not_belong_are_refused_before_the_data_are_read(
    config_of, dense, monkeypatch
):
    monkeypatch.setattr(stage, "open_data", lambda *_, **__: pytest.fail("data were read"))
    with pytest.raises(CheckpointError, match=r"with width 0.1 where the config says 0.2"):
        pipeline.prune("run", config_of(f"weights={dense}", "width=0.2"))


@pytest.mark.parametrize("key", ["weights", "pretrain_weights"])
def test_exchanged_class_names_are_refused(config_of, dense, monkeypatch, key):
    opened = stage.open_data

    def exchanged(*given, **more):
        data = opened(*given, **more)
        labels = (data.labels[1], data.labels[0], *data.labels[2:])
        return replace(data, train=replace(data.train, labels=labels))

    monkeypatch.setattr(stage, "open_data", exchanged)
    with pytest.raises(CheckpointError, match="class 0 is '0' where the data says '1'"):
        pipeline.prune("run", config_of(f"{key}={dense}"))


def test_weights_of_the_backbone_alone_are_not_enough(config_of, dense, tmp_path):
    plain = tmp_path / "plain.safetensors"
    save_file(load_file(dense), plain)
    with pytest.raises(CheckpointError, match="which leave 106 tensors untrained, such as 'yolo_"):
        pipeline.prune("run", config_of(f"pretrain_weights={plain}"))
    options = pipeline.PruneOptions(finetune=False)
    found = pipeline.prune("run", config_of(f"pretrain_weights={dense}"), options)
    assert found.checkpoint.name == "pruned.safetensors"
    assert (found.metrics, found.repair) == ({}, ())


def test_the_folders_own_network_is_kept_and_a_resumed_run_takes_the_kept_one(
    config_of, dense, notes, tmp_path, monkeypatch
):
    def dies(*_, **__):
        raise MeasureError("the power went out")

    best = tmp_path / "output" / "run" / "best_model.safetensors"
    best.parent.mkdir(parents=True)
    shutil.copy(dense, best)
    kept = best.with_name("before_pruning.safetensors")
    config = config_of(f"weights={best}")
    with monkeypatch.context() as patched:
        patched.setattr(stage, "plan_cut", dies)
        with pytest.raises(MeasureError):
            pipeline.prune("run", config, progress=notes)
    assert kept.read_bytes() == dense.read_bytes()
    assert any(line.endswith(f"'{kept}' keeps this one") for line in notes.said)
    best.write_bytes(b"the pruned network's, by now")
    found = pipeline.prune("run", config, resume=True, progress=notes)
    assert f"weights: {kept}" in notes.said
    assert fw.load(found.checkpoint).get_parameter(LAYER).shape[0] == 24
    assert kept.read_bytes() == dense.read_bytes()


@pytest.mark.parametrize("place", ["plan_cut", "train_model"])
def test_the_state_of_the_dense_training_is_not_resumed(config_of, monkeypatch, place):
    def dies(*_, **__):
        raise MeasureError("the power went out")

    config = config_of()
    pipeline.train("run", config)
    with monkeypatch.context() as patched:
        patched.setattr(stage, place, dies)
        with pytest.raises(MeasureError):
            pipeline.prune("run", config)
    found = pipeline.prune("run", config, resume=True)
    assert fw.load(found.checkpoint).get_parameter(LAYER).shape[0] == 24


def test_a_resumed_run_that_had_not_begun_starts(config_of):
    config = config_of()
    pipeline.train("run", config)
    found = pipeline.prune("run", config, resume=True)  # Killed before it wrote anything.
    assert fw.load(found.checkpoint).get_parameter(LAYER).shape[0] == 24


@pytest.fixture
def interrupted(monkeypatch):
    """Return a function that prunes, and is stopped when the fine-tuning starts."""

    def start(*given):
        def dies(*_, **__):
            raise MeasureError("the power went out")

        with monkeypatch.context() as patched:
            patched.setattr(stage, "train_model", dies)
            with pytest.raises(MeasureError):
                pipeline.prune("run", *given)

    return start


def test_a_second_pruning_is_resumed_with_its_own_cut(config_of, dense, notes, interrupted):
    options = pipeline.PruneOptions(finetune=False)
    first = pipeline.prune("first", config_of(f"weights={dense}"), options)
    config = config_of(f"weights={first.checkpoint}")
    interrupted(config)
    found = pipeline.prune("run", config, resume=True, progress=notes)
    assert any(line.startswith("resumed with the cut of") for line in notes.said)
    assert (found.before, len(read(found.checkpoint).plans)) == (first.after, 2)
    assert fw.load(found.checkpoint).get_parameter(LAYER).shape[0] == 12
    again = pipeline.prune("run", config, resume=True)
    assert (again.before, again.after) == (found.before, found.after)


def test_a_copy_of_an_earlier_pruning_is_not_taken_for_that_of_the_resumed_one(
    config_of, dense, notes, tmp_path, monkeypatch
):
    best = tmp_path / "output" / "run" / "best_model.safetensors"
    best.parent.mkdir(parents=True)
    shutil.copy(dense, best)
    config = config_of(f"weights={best}")
    first = pipeline.prune("run", config)
    with monkeypatch.context() as patched:
        patched.setattr(stage, "_kept", lambda *_: pytest.fail("killed before the copy"))
        with pytest.raises(pytest.fail.Exception):
            pipeline.prune("run", config)
    assert best.with_name("before_pruning.safetensors").read_bytes() == dense.read_bytes()
    found = pipeline.prune("run", config, resume=True, progress=notes)
    assert found.before == first.after
    assert len(read(best).plans) == 2


def test_every_way_of_cutting_is_one_config(config_of, dense, tmp_path):
    curves = {LAYER: tuple(Point(r / 10, 0.8 - 0.01 * r) for r in range(1, 10))}
    Sensitivity("map_50", 0.8, curves, local=True).save(tmp_path / "s.json")
    nothing = ("prune.params=[]", "prune.ratios=[]", f"weights={dense}")
    scan = (*nothing, f"prune.scan={tmp_path / 's.json'}")
    options = pipeline.PruneOptions(finetune=False)
    ways = {
        "drop": (*scan, "prune.max_drop=0.05"),
        "budget": (*scan, "prune.budget=macs=0.99"),
        "ranking": (*nothing, "prune.ranking=l1_norm", "prune.budget={params: 0.8}"),
    }
    found = {name: pipeline.prune(name, config_of(*told), options) for name, told in ways.items()}
    assert list(found["drop"].plan.groups) == [LAYER]
    assert found["budget"].after.macs <= 0.99 * found["budget"].before.macs
    assert found["ranking"].after.params <= 0.8 * found["ranking"].before.params


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ((), "must have a cut"),
        (("prune.scan=none.json", "prune.max_drop=0.05"), r"none\.json"),
        (("prune.scan=this_run", "prune.max_drop=0.05"), "must name the file of its scan"),
        (("prune.scan=DEFAULT", "prune.max_drop=0.05", "model=unet"), "which has none"),
    ],
)
def test_cuts_that_are_refused_before_the_data_are_read(config_of, monkeypatch, told, said):
    monkeypatch.setattr(stage, "open_data", lambda *_, **__: pytest.fail("data were read"))
    with pytest.raises(FlyweightError, match=said):
        pipeline.prune("run", config_of("prune.params=[]", "prune.ratios=[]", *told))
