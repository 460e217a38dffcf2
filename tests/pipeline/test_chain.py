import copy
import json
from types import SimpleNamespace

import pytest

import flyweight.pipeline.chain as chain
from flyweight.config.reading import load_config
from flyweight.errors import ConfigError, MeasureError
from flyweight.pipeline.inputs import Saver
from flyweight.pruning import PruningPlan

SMALL = ("width=0.1", "input_size=64", "data.size=64", "data.train_count=4", "data.val_count=2")


@pytest.fixture
def stubbed(monkeypatch, tmp_path):
    """Run the chain with stages that only leave their files; return what was done and said."""

    def train(model, config, train, data, place, *, resume):
        done.append(f"{place.name}{' resumed' if resume else ''}")
        Saver(config, data.labels, "detect")(
            model, {"map_50": 0.5}, place / "best_model.safetensors"
        )

    def export(loaded, path, *, end, name, images):
        done.append(f"{path.name}")
        assert [image.shape for image in images] == [(3, 64, 64)] * 2
        path.write_text(f"{name} {end}")

    def measure(files, *, threads, runtime, config):
        return [SimpleNamespace(path=str(path), notes=()) for path in files]

    def cut(model, preprocessing, wanted, measured):
        small = copy.deepcopy(model)
        next(small.parameters()).data.mul_(len(wanted.criterion))
        return small, PruningPlan("a graph", {}, wanted.criterion)

    done = []
    monkeypatch.setattr(chain, "train_model", train)
    monkeypatch.setattr(chain, "prune_model", cut)
    monkeypatch.setattr(chain, "trace_model", lambda *_: None)
    monkeypatch.setattr(chain, "evaluate_model", lambda *_: {"map_50": 0.25})
    monkeypatch.setattr(chain, "export_model", export)
    monkeypatch.setattr(chain, "measure", measure)
    monkeypatch.setattr(chain, "build_report", lambda inputs: inputs)
    monkeypatch.setattr(chain, "render_all", lambda report, folder: [folder / "report.html"])

    def run(*overrides):
        done.clear()
        said = []
        config = load_config("demo_digits", (*SMALL, *overrides))[1]
        finished = chain.run("demo", config, tmp_path / "run", say=said.append)
        assert finished.page == tmp_path / "run" / "report.html"
        return list(done), said

    return run


EXPORTS = ["dense.onnx", "dense_nms.onnx", "pruned.onnx", "pruned_nms.onnx"]


def test_every_stage_depends_on_what_it_is_made_from(stubbed, tmp_path):
    done, said = stubbed()
    assert done == ["dense", "pruned", *EXPORTS]
    assert "pruned, before fine-tuning: map_50 25.0 %" in said
    assert stubbed()[0] == []
    for harmless in ("save_dir=other", "bench.seconds=9", "eval_batch_size=3", "train.log_every=7"):
        assert stubbed(harmless)[0] == [], harmless

    assert stubbed("prune.criterion=geometry_median")[0] == ["pruned", *EXPORTS]
    stubbed()
    # The stub's fine-tuning teaches nothing: the same weights come out, so the same exports.
    assert stubbed("finetune.steps=60")[0] == ["pruned"]
    stubbed()
    assert stubbed("train.seed=3")[0] == ["dense", "pruned", *EXPORTS]
    stubbed()
    assert stubbed("data.seed=3")[0][:2] == ["dense", "pruned"]


def test_stages_whose_files_are_gone_or_forgotten_are_done_again(stubbed, tmp_path):
    stubbed()
    (tmp_path / "run/pruned/plan.json").unlink()
    assert stubbed()[0] == ["pruned"]
    (tmp_path / "run/export/pruned.onnx").unlink()
    assert stubbed()[0] == EXPORTS
    chain.forget(tmp_path / "run")
    assert stubbed()[0] == ["dense", "pruned", *EXPORTS]
    note = json.loads((tmp_path / "run/dense/done.json").read_text())
    assert note["finished"] is True


def test_a_chain_that_was_cut_off_goes_on(stubbed, monkeypatch):
    def dies(*_):
        raise MeasureError("the power went out")

    with monkeypatch.context() as patched:
        patched.setattr(chain, "evaluate_model", dies)
        with pytest.raises(MeasureError):
            stubbed()
    assert stubbed()[0] == ["pruned resumed", *EXPORTS]


def test_new_weights_to_start_from_are_noticed_under_the_same_name(stubbed, tmp_path):
    stubbed()
    start = tmp_path / "start.safetensors"
    start.write_bytes((tmp_path / "run/dense/best_model.safetensors").read_bytes())
    told = f"pretrain_weights={start}"
    assert stubbed(told)[0][0] == "dense"
    assert stubbed(told)[0] == []
    model, _ = chain.load_model(start)
    next(model.parameters()).data.mul_(2)
    config = load_config("demo_digits", SMALL)[1]
    Saver(config, tuple("0123456789"), "detect")(model, {}, start)
    assert stubbed(told)[0][0] == "dense"


def test_weights_are_not_silently_ignored(stubbed):
    with pytest.raises(ConfigError, match=r"must train its own network.*pretrain_weights"):
        stubbed("weights=mine")
