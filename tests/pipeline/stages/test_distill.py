import json
from pathlib import Path

import pytest
import torch
from tests.pipeline.stages.conftest import LAYER

import flyweight as fw
from flyweight import checkpoint, pipeline
from flyweight.distillation.teacher_cache import OutputCache
from flyweight.errors import CheckpointError, ConfigError, TrainingError
from flyweight.pipeline.build_report import stage_curves
from flyweight.pipeline.chain import run_chain
from flyweight.pipeline.inputs import Saver
from flyweight.pipeline.stages.distill import DISTILL, DistillOptions, training_of
from flyweight.pipeline.stages.prune import PRUNE
from flyweight.pipeline.stages.train import TRAIN
from flyweight.quantization.network import plan_of

CUT = ("prune.params=[yolo_block.0.0.0.conv.weight]", "prune.ratios=[0.5]")
STEPS = ("distill.steps=3", "distill.precision=32", "distill.similarity_images=3")


@pytest.fixture
def pruned(config_of, dense):
    """A pruned student in the folder of the run, with its dense network beside it."""
    trained = Path(config_of().save_dir) / "run" / "best_model.safetensors"
    trained.parent.mkdir(parents=True)
    trained.write_bytes(dense.read_bytes())
    config = config_of(f"weights={trained}", *CUT)
    return pipeline.prune("run", config, pipeline.PruneOptions(finetune=False))


def test_a_pruned_student_is_taught_by_its_dense_network(config_of, pruned, notes, tmp_path):
    config = config_of(f"weights={pruned.checkpoint}", *STEPS)
    found = pipeline.distill("run", config, progress=notes)
    folder = tmp_path / "output" / "run" / "distilled"
    assert found.checkpoint == folder / "best_model.safetensors"
    dense = tmp_path / "output" / "run" / "best_model.safetensors"
    assert f"teacher: {dense}" in notes.said
    assert found.primary == "map_50"
    assert {*found.before} == {*found.metrics} == {*found.teacher}
    assert len(found.similarity) == 7
    saved = checkpoint.read(found.checkpoint)
    assert saved.plans  # It is the student's.
    assert {parent.role for parent in saved.parents} == {"dense", "teacher"}
    numbers = json.loads((folder / "distilled.json").read_text())
    assert numbers["similarity"].keys() == found.similarity.keys()
    curves = list(stage_curves("student", found.checkpoint, "mAP"))
    assert {curve.series for curve in curves} >= {
        "task",
        "distill/split_distill",
        "before",
        "after",
    }
    # The checkpoints of other commands stay.
    assert not checkpoint.read(dense).plans


def test_one_command_prunes_and_distils(config_of, dense, notes):
    config = config_of(f"weights={dense}", *STEPS, "use_fine_grained_loss=true")
    options = DistillOptions(params=LAYER, ratios="0.5")
    found = pipeline.distill("run", config, options, progress=notes)
    assert f"teacher: {dense}" in notes.said
    student = fw.load(found.checkpoint)
    whole = fw.load(dense)
    one, other = (dict(each.named_parameters())[LAYER] for each in (student, whole))
    assert len(one) == len(other) // 2


def test_a_dense_student_needs_a_teacher_of_the_same_classes(config_of, dense, tmp_path):
    config = config_of(f"weights={dense}", *STEPS)
    with pytest.raises(ConfigError, match="A dense student must have a teacher"):
        pipeline.distill("run", config)
    named = config_of(f"weights={dense}", *STEPS, f"distill.teacher={tmp_path / 'none'}")
    with pytest.raises(CheckpointError, match="A file of weights must exist"):
        pipeline.distill("run", named)
    from flyweight.pipeline.network_plans import build_model

    other = config_of("model=yolov3_r34")
    path = tmp_path / "teacher.safetensors"
    Saver(other, tuple("9876543210"), "detect")(build_model(other), {}, path)
    taught = config_of(f"weights={dense}", *STEPS, f"distill.teacher={path}")
    with pytest.raises(ConfigError, match="'0' of the student and '9' of the teacher as class 0"):
        pipeline.distill("run", taught)
    features = config_of(
        f"weights={dense}", *STEPS, f"distill.teacher={path}", "distill.strategy=pkd"
    )
    found = pipeline.distill("run", features)
    assert found.teacher == {}  # Its classes are others, so it is not evaluated.
    assert found.metrics


def test_an_interrupted_distillation_is_resumed_to_the_same_bits(config_of, pruned, monkeypatch):
    from flyweight.engine.loop import Training

    config = config_of(f"weights={pruned.checkpoint}", *STEPS, "train.checkpoint_every=1")
    whole = fw.load(pipeline.distill("run", config).checkpoint).state_dict()
    optimize = Training._optimize

    def dies(self, batch, step):
        if step == 2:
            raise TrainingError("the power went out")
        return optimize(self, batch, step)

    with monkeypatch.context() as patched:
        patched.setattr(Training, "_optimize", dies)
        with pytest.raises(TrainingError):
            pipeline.distill("run", config)
    again = fw.load(pipeline.distill("run", config, resume=True).checkpoint).state_dict()
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def test_a_chain_distils_its_pruned_network(config_of, tmp_path):
    config = config_of(*CUT, *STEPS)
    stages = (TRAIN, PRUNE, DISTILL)
    found = run_chain("run", config, tmp_path / "chain", stages=stages)
    folder = tmp_path / "chain" / "distilled"
    assert found["distill"].checkpoint == folder / "best_model.safetensors"
    assert checkpoint.read(found["distill"].checkpoint).plans
    again = run_chain("run", config, tmp_path / "chain", stages=stages)
    assert again["distill"] == found["distill"]
    without = run_chain("run", config_of(*CUT), tmp_path / "chain", stages=(TRAIN, PRUNE, DISTILL))
    assert "distill" not in without


def test_the_training_of_a_student_is_short_or_that_of_the_config(config_of):
    short = training_of(config_of("train.learning_rate=0.1", *STEPS), 0.5)
    assert (short.steps, short.schedule, short.learning_rate) == (3, "cosine", 0.05)
    usual = config_of("distill.recipe=finetune")
    assert training_of(usual, 0.5) == usual.finetune
    cut = config_of(
        *("distill.recipe=finetune", "distill.steps=2", "finetune.steps=9"),
        *("finetune.milestones=[1, 5]", "finetune.schedule=step", "finetune.warmup_steps=4"),
    )
    found = training_of(cut, 0.5)
    assert (found.steps, found.milestones, found.warmup_steps) == (2, (1,), 2)


def test_kept_outputs_of_the_teacher_give_the_same_bits(config_of, pruned, notes, monkeypatch):
    """Kept for a second student, strategy or run of the same seed."""
    told = (f"weights={pruned.checkpoint}", *STEPS)
    without = fw.load(pipeline.distill("run", config_of(*told)).checkpoint).state_dict()
    kept = config_of(*told, "distill.cache_bytes=50000000")
    first = fw.load(pipeline.distill("run", kept, progress=notes).checkpoint).state_dict()
    assert any(said.startswith("outputs of the teacher are kept: ") for said in notes.said)

    def fails(self, teacher, images, run):
        return results(self, teacher, images, lambda _: pytest.fail("the teacher ran again"))

    results = OutputCache.results
    monkeypatch.setattr(OutputCache, "results", fails)
    again = fw.load(pipeline.distill("run", kept).checkpoint).state_dict()
    for name, value in without.items():
        assert torch.equal(first[name], value)
        assert torch.equal(again[name], value)


def test_a_quantized_student_stays_quantized(config_of, dense, notes, tmp_path):
    config = config_of()
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    small = fw.quantize(fw.load(dense).eval(), images, fw.QuantConfig(weight_bits=7))
    path = tmp_path / "quantized.safetensors"
    Saver(config, tuple("0123456789"), "detect")(small, {}, path)
    with pytest.raises(ConfigError, match="A dense student must have a teacher"):
        pipeline.distill("run", config_of(f"weights={path}", *STEPS))
    taught = config_of(f"weights={path}", *STEPS, f"distill.teacher={dense}")
    found = pipeline.distill("run", taught, progress=notes)
    student = fw.load(found.checkpoint)
    assert plan_of(student) == plan_of(fw.load(path))
    assert len(found.similarity) == 7
    weight = dict(student.named_parameters())[LAYER]
    assert not torch.equal(weight, dict(small.named_parameters())[LAYER])  # It has learned.
    assert {parent.role for parent in checkpoint.read(found.checkpoint).parents} >= {"teacher"}
