import json
import sys
from dataclasses import replace

import pytest
from tests.measuring.conftest import invent
from tests.measuring.machine import blocked
from tests.test_version_0_1_0 import FIXTURES

import flyweight.pipeline.chain as chain
from flyweight.config.reading import load_config
from flyweight.engine.fit import FitResult
from flyweight.errors import ConfigError, DataError, FileError, MeasureError, PlanError
from flyweight.pipeline.inputs import Saver, load_model
from flyweight.pipeline.latency_cuts import NetworkTimer
from flyweight.pipeline.rendered_report import Reported
from flyweight.pipeline.stages import bench, export, prune, report, train
from flyweight.progress import Silent
from flyweight.sensitivity import Point, Sensitivity, Timing
from flyweight.workspace import Workspace

SMALL = ("width=0.1", "input_size=64", "data.size=64", "data.train_count=4", "data.val_count=2")


@pytest.fixture
def stubbed(monkeypatch, tmp_path):
    """Run the chain with stages that only leave their files; return what was done and said."""

    def train_model(model, config, how, data, place, *, resume, progress):
        done.append(f"{place.name}{' resumed' if resume else ''}")
        path = place / "best_model.safetensors"
        Saver(config, data.labels, "detect")(model, {"map_50": 0.5}, path)
        return FitResult({"map_50": 0.5}, {}, path, None, how.steps, 1.0)

    def export_model(loaded, path, *, end, name, images, runtime):
        done.append(f"{path.name}")
        assert [image.shape for image in images] == [(3, 64, 64)] * 2
        total = sum(tensor.detach().sum().item() for tensor in loaded.model.parameters())
        path.write_text(f"{name} {end} {total}")

    def measure(files, *, threads, runtime, config, progress):
        done.append("measured")
        return tuple(replace(invent(path.name, 2.0), path=str(path)) for path in files)

    def rendered(inputs, folder):
        done.append("reported")
        files = tuple(folder / name for name in report.FILES)
        for path in files:
            path.write_text(inputs.name)
        return Reported(inputs, files[-1], files)

    done = []
    for stage in (train, prune):
        monkeypatch.setattr(stage, "train_model", train_model)
    monkeypatch.setattr(prune, "evaluate_model", lambda *_, **__: {"map_50": 0.25})
    monkeypatch.setattr(export, "export_model", export_model)
    monkeypatch.setattr(bench, "measure", measure)
    monkeypatch.setattr(report, "build_report", lambda inputs: inputs)
    monkeypatch.setattr(report, "with_explorer", lambda inputs, *_, **__: inputs)
    monkeypatch.setattr(report, "rendered", rendered)
    monkeypatch.setattr(report, "read_report", lambda folder: None)

    def run(*overrides, stages=chain.CHAIN):
        done.clear()
        said = []
        config = load_config("demo_digits", (*SMALL, *overrides))[1]
        folder, progress = tmp_path / "run", Notes(said)
        found = chain.run_chain("demo", config, folder, stages=stages, progress=progress)
        assert found["report"].page == tmp_path / "run" / "report.html"
        return list(done), said

    return run


class Notes(Silent):
    """Progress that keeps the notes."""

    def __init__(self, said):
        self.said = said

    def note(self, text):
        self.said.append(text)


FILES = ["dense.onnx", "dense_nms.onnx", "pruned.onnx", "pruned_nms.onnx"]
EXPORTS = [*FILES, "measured", "reported"]


def test_every_stage_depends_on_what_it_is_made_from(stubbed, tmp_path):
    done, said = stubbed()
    assert done == ["dense", "pruned", *EXPORTS]
    assert "before fine-tuning\nmap_50   25.00 %" in said
    assert stubbed()[0] == []
    for harmless in ("save_dir=other", "eval_batch_size=3", "train.log_every=7"):
        assert stubbed(harmless)[0] == [], harmless
    assert stubbed("bench.seconds=9")[0] == ["measured"]
    stubbed()

    assert stubbed("prune.criterion=geometry_median")[0] == ["pruned", *EXPORTS]
    stubbed()
    # The stub's fine-tuning teaches nothing: the same weights come out, so the same exports.
    done, said = stubbed("finetune.steps=60")
    assert done == ["pruned"]
    assert "pruned: started again, because finetune.steps was 220 and is 60" in said
    stubbed()
    assert stubbed("train.seed=3")[0] == ["dense", "pruned", *EXPORTS]
    stubbed()
    assert stubbed("data.seed=3")[0][:2] == ["dense", "pruned"]


def test_stages_whose_files_are_gone_or_forgotten_are_done_again(stubbed, tmp_path):
    stubbed()
    (tmp_path / "run/pruned/plan.json").unlink()
    assert stubbed()[0] == ["pruned"]
    (tmp_path / "run/export/pruned.onnx").unlink()
    assert stubbed()[0] == FILES
    chain.forget(tmp_path / "run")
    assert stubbed()[0] == ["dense", "pruned", *EXPORTS]
    note = json.loads((tmp_path / "run/dense/done.json").read_text())
    assert note["finished"] is True


def test_a_chain_that_was_cut_off_goes_on(stubbed, monkeypatch):
    def dies(*_, **__):
        raise MeasureError("the power went out")

    with monkeypatch.context() as patched:
        patched.setattr(prune, "evaluate_model", dies)
        with pytest.raises(MeasureError):
            stubbed()
    assert stubbed()[0] == ["pruned resumed", *EXPORTS]


def test_a_cut_that_was_made_is_not_made_again(stubbed, monkeypatch, tmp_path):
    """Latency is measured in rounds: a second choice could differ from the training state."""

    def dies(*_, **__):
        raise MeasureError("the power went out")

    with monkeypatch.context() as patched:
        patched.setattr(prune, "train_model", dies)
        with pytest.raises(MeasureError):
            stubbed()
    with monkeypatch.context() as patched:
        patched.setattr(prune, "plan_cut", dies)
        done, said = stubbed()
    assert done == ["pruned resumed", *EXPORTS]
    cut = tmp_path / "run/pruned/before_finetuning.safetensors"
    assert f"resumed with the cut of '{cut}'" in said


def test_an_older_plan_is_not_taken_for_that_of_an_interrupted_attempt(stubbed, monkeypatch):
    def dies(*_, **__):
        raise MeasureError("the power went out")

    stubbed()
    with monkeypatch.context() as patched:
        patched.setattr(prune, "plan_cut", dies)
        with pytest.raises(MeasureError):
            stubbed("prune.criterion=geometry_median")
    done, said = stubbed("prune.criterion=geometry_median")
    assert done == ["pruned resumed", *EXPORTS]
    assert not [line for line in said if line.startswith("resumed with")]


def test_new_weights_to_start_from_are_noticed_under_the_same_name(stubbed, tmp_path):
    stubbed()
    start = tmp_path / "start.safetensors"
    start.write_bytes((tmp_path / "run/dense/best_model.safetensors").read_bytes())
    told = f"pretrain_weights={start}"
    assert stubbed(told)[0][0] == "dense"
    assert stubbed(told)[0] == []
    model, _ = load_model(start)
    next(model.parameters()).data.mul_(2)
    config = load_config("demo_digits", SMALL)[1]
    Saver(config, tuple("0123456789"), "detect")(model, {}, start)
    assert stubbed(told)[0][0] == "dense"


def test_weights_are_not_silently_ignored(stubbed):
    with pytest.raises(ConfigError, match=r"must train its own network.*pretrain_weights"):
        stubbed("weights=mine")


def test_a_chain_without_a_cut_or_with_unreadable_curves_is_refused_before_it_trains(stubbed):
    nothing = ("prune.params=[]", "prune.ratios=[]")
    with pytest.raises(PlanError, match="Pruning must have a cut"):
        stubbed(*nothing)
    with pytest.raises(DataError, match=r"none\.json"):
        stubbed(*nothing, "prune.scan=none.json", "prune.max_drop=0.05")


def test_a_scan_of_other_data_is_refused_before_the_chain_trains(stubbed, tmp_path):
    layer, file = "yolo_block.0.0.0.conv.weight", tmp_path / "s.json"
    by_scan = ("prune.params=[]", "prune.ratios=[]", f"prune.scan={file}", "prune.max_drop=0.05")

    def scan_of(**made_from):
        points = (Point(0.5, 0.79), Point(0.9, 0.1))
        Sensitivity("map_50", 0.8, {layer: points}, local=True, made_from=made_from).save(file)

    scan_of(data="0123456789abcdef")
    with pytest.raises(DataError, match=r"with other: data \(0123456789ab, here "):
        stubbed(*by_scan)
    assert not (tmp_path / "run" / "dense").exists()
    assert stubbed(*by_scan, "prune.foreign_scan=true")[0][:2] == ["dense", "pruned"]


def test_a_scan_of_other_weights_is_refused_as_soon_as_the_weights_are_known(
    stubbed, tmp_path, monkeypatch
):
    layer, file = "yolo_block.0.0.0.conv.weight", tmp_path / "s.json"
    by_scan = ("prune.params=[]", "prune.ratios=[]", f"prune.scan={file}")
    timed = (*by_scan, "prune.budget=latency_share=0.9", "prune.latency_table=this_run")
    points = (Point(0.5, 0.79), Point(0.9, 0.1))
    made = {"weights": "0123456789abcdef"}
    Sensitivity("map_50", 0.8, {layer: points}, local=True, made_from=made).save(file)
    stages = [replace(one, run=fails) if one.name == "layers" else one for one in chain.CHAIN]
    stubbed()
    with pytest.raises(DataError, match=r"with other: weights \(0123456789ab, here "):
        stubbed(*timed, stages=stages)
    with pytest.raises(MeasureError, match="layers were timed"):
        stubbed(*timed, "prune.foreign_scan=true", stages=stages)


def fails(*_):
    raise MeasureError("layers were timed")


def test_one_chain_at_a_time_works_in_a_folder(stubbed, tmp_path):
    with (
        Workspace(tmp_path / "run").locked(),
        pytest.raises(FileError, match="Only one run at a time can work in a folder"),
    ):
        stubbed()
    assert not (tmp_path / "run").exists()
    stubbed()
    assert not (tmp_path / "run" / ".lock").exists()


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """A classifier that learns in seconds, and a machine with blocks of 8 channels."""
    monkeypatch.syspath_prepend(str(FIXTURES))
    monkeypatch.setattr(
        "flyweight.measuring.table_builder.RuntimeTimer", lambda threads, runtime: blocked(8)
    )
    monkeypatch.setattr(NetworkTimer, "dense_ms", lambda self: 50.0)

    def pruned(self, ratios):
        latency = 50 * (1 - 0.5 * sum(ratios.values()) / len(self.graph.prunable()))
        return Timing(latency, (latency, latency), 50.0)

    monkeypatch.setattr(NetworkTimer, "pruned", pruned)

    def run(*overrides):
        told = ("prune.params=[]", "prune.ratios=[]", *overrides)
        said, config = [], load_config(str(FIXTURES / "tiny.yaml"), told)[1]
        found = chain.run_chain("tiny", config, tmp_path / "run", progress=Notes(said))
        return found, said

    yield run
    sys.modules.pop("tiny_network", None)


@pytest.mark.slow
@pytest.mark.filterwarnings("default::DeprecationWarning")  # torch's exporter, not ours
@pytest.mark.filterwarnings("default::FutureWarning")
def test_one_yaml_trains_scans_times_layers_and_prunes_to_a_latency_budget(tiny, tmp_path):
    cut = ("prune.scan=this_run", "prune.budget=latency_share=0.9", "prune.latency_table=this_run")
    found, said = tiny(*cut)
    assert list(found) == ["train", "scan", "layers", "prune", "export", "bench", "report"]
    folder = tmp_path / "run"
    assert found["scan"].file == folder / "sens.json"
    assert found["layers"].file == folder / "layers.json"
    assert any(line.startswith("round 1: measured ") for line in said)
    assert found["prune"].after.macs < found["prune"].before.macs
    assert found["report"].report.explorer is not None
    again, said = tiny(*cut)
    assert [line for line in said if "finished before" not in line] == []
    assert again["report"].report == found["report"].report
    assert again["prune"] == found["prune"]
    other, said = tiny("prune.scan=this_run", "prune.budget=macs=0.8")
    assert list(other) == ["train", "scan", "prune", "export", "bench", "report"]
    assert "scan: finished before, skipped" in said
