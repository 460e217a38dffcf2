import pytest

from flyweight.checkpoint import read
from flyweight.config.reading import load_config
from flyweight.errors import CheckpointError, DataError
from flyweight.pipeline.belonging import (
    checkpoint_to_prune,
    dense_checkpoint,
    note_absent_layers,
    require_architecture,
    require_labels_to_prune,
    require_same_labels,
    require_same_training,
    require_scan,
    uses_in_config,
    uses_of,
)
from flyweight.pipeline.inputs import Saver
from flyweight.pipeline.network_plans import build_model, prune_model, trace_model, weightless
from flyweight.sensitivity import Point, Sensitivity
from flyweight.workspace import MadeFrom, Workspace

LABELS = tuple("0123456789")
SMALL = ("width=0.1", "input_size=64")


def config_of(*overrides):
    return load_config("demo_digits", (*SMALL, *overrides))[1]


def save(path, *, pruned=False):
    config = config_of()
    model = build_model(config)
    if pruned:
        model = prune_model(model, config.preprocessing, config.prune.cut)[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    Saver(config, LABELS, "detect")(model, {}, path)
    return path


def test_the_dense_network_of_a_run_folder(tmp_path):
    config, folder = config_of(f"save_dir={tmp_path}"), tmp_path / "run"
    assert dense_checkpoint("run", config) is None
    in_chain = save(folder / "dense" / "best_model.safetensors")
    assert dense_checkpoint("run", config) == in_chain
    kept = save(folder / "before_pruning.safetensors")
    best = save(folder / "best_model.safetensors", pruned=True)
    assert dense_checkpoint("run", config) == kept
    save(best)
    assert dense_checkpoint("run", config) == best


def test_what_is_pruned(tmp_path):
    config = config_of(f"save_dir={tmp_path}")
    with pytest.raises(CheckpointError, match="Train it first with: flyweight train"):
        checkpoint_to_prune("run", config)
    assert checkpoint_to_prune("run", config_of("pretrain_weights=timm")) is None
    best = save(tmp_path / "run" / "best_model.safetensors")
    assert checkpoint_to_prune("run", config) == best
    assert checkpoint_to_prune("run", config_of(f"weights={best.with_suffix('')}")) == best
    with pytest.raises(CheckpointError, match=r"with width 0.1 where the config says 0.3"):
        checkpoint_to_prune("run", config_of(f"save_dir={tmp_path}", "width=0.3"))


def test_labels_have_one_order(tmp_path):
    path = save(tmp_path / "a.safetensors")
    found = read(path)
    require_architecture(found, config_of(), path)
    require_same_labels(found.labels, LABELS, path)
    require_labels_to_prune(path, config_of(), LABELS)
    require_labels_to_prune(None, config_of("pretrain_weights=timm"), LABELS[::-1])
    require_labels_to_prune(None, config_of(f"pretrain_weights={path}"), LABELS)
    for given, config in ((path, config_of()), (None, config_of(f"pretrain_weights={path}"))):
        with pytest.raises(CheckpointError, match="class 0 is '0' where the data says '9'"):
            require_labels_to_prune(given, config, LABELS[::-1])
    others = config_of(f"pretrain_weights={path}", "num_classes=2")
    require_labels_to_prune(None, others, ("cat", "dog"))


def scan_of(config, seed, data="d"):
    """Return curves of the config's network with the weights of a seed."""
    model = build_model(config.model_copy(update={"train": config.train.model_copy(update={"seed": seed})}))  # fmt: skip  # noqa: E501
    graph = trace_model(model, config.preprocessing)
    layers = {"yolo_block.0.0.0.conv.weight": (Point(0.5, 0.7),)}
    uses = uses_of(graph, model, config.preprocessing, data)
    return Sensitivity("map", 0.8, layers, local=True, made_from=uses), uses, graph, model


def test_a_scan_belongs_to_what_it_was_measured_on(tmp_path):
    said, file, config = [], tmp_path / "sens.json", config_of()
    curves, uses, graph, _ = scan_of(config, 0)
    require_scan(curves, file, uses, foreign=False, say=said.append)
    bare = weightless(config)
    unknown = uses_of(trace_model(bare, config.preprocessing), bare, config.preprocessing)
    require_scan(curves, file, unknown, foreign=False, say=said.append)
    require_scan(curves, file, uses_in_config(curves, config), foreign=False, say=said.append)
    note_absent_layers(curves, graph, said.append)
    assert said == []

    wide = scan_of(config_of("input_size=96"), 0)[1]
    others = {
        "weights": scan_of(config, 1)[1],
        "width (0.1, here 0.2); weights": scan_of(config_of("width=0.2"), 0)[1],
        "input height (64, here 96); input width (64, here 96)": wide,
        "input std ": scan_of(config_of("std=[1, 1, 1]"), 0)[1],
        "data (d, here e)": scan_of(config, 0, "e")[1],
    }
    for named, used in others.items():
        with pytest.raises(DataError, match="add --foreign-scan") as refusal:
            require_scan(curves, file, used, foreign=False, say=said.append)
        assert f"'{file}' with other: {named}" in str(refusal.value)
        require_scan(curves, file, used, foreign=True, say=said.append)
        assert f"is of something else and used all the same: {named}" in said[-1]
    for told, named in (("width=0.3", "width"), ("input_size=96", "input height")):
        used = uses_in_config(curves, config_of(told))
        with pytest.raises(DataError, match=f"with other: {named}"):
            require_scan(curves, file, used, foreign=False, say=said.append)


def test_a_scan_without_a_record_is_used_and_that_is_said(tmp_path):
    said, (curves, uses, graph, _) = [], scan_of(config_of(), 0)
    bare = Sensitivity("metric", 1.0, {**curves.curves, "gone.weight": (Point(0.5, 0.9),)})
    require_scan(bare, tmp_path / "s.data", uses, foreign=False, say=said.append)
    note_absent_layers(bare, graph, said.append)
    assert "does not say what it was measured on" in said[0]
    assert said[1] == "note: 1 layer of the scan cannot be cut here: gone.weight"


def test_a_resumed_training_is_of_the_same_things(tmp_path):
    said, workspace = [], Workspace(tmp_path / "training")
    require_same_training(workspace, MadeFrom({"steps": 3}), said.append)
    assert "does not say what was trained" in said.pop()
    workspace.begin(MadeFrom({"steps": 3, "weights of train": "a" * 64}))
    same = MadeFrom({"steps": 3, "weights of train": "a" * 64})
    require_same_training(workspace, same, said.append)
    newer = MadeFrom({**same.values, "bits": 8}, frozenset({"bits"}))
    require_same_training(workspace, newer, said.append)
    assert said == []
    other = MadeFrom({"steps": 4, "weights of train": "b" * 64})
    with pytest.raises(CheckpointError, match="steps was 3 and is 4; weights of train changed"):
        require_same_training(workspace, other, said.append)
