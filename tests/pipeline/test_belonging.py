import pytest

from flyweight.checkpoint import read
from flyweight.config.reading import load_config
from flyweight.errors import CheckpointError
from flyweight.pipeline.belonging import (
    checkpoint_to_prune,
    dense_checkpoint,
    require_architecture,
    require_labels_to_prune,
    require_same_labels,
)
from flyweight.pipeline.inputs import Saver
from flyweight.pipeline.network_plans import build_model, prune_model

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
    require_same_labels(found, LABELS, path)
    require_labels_to_prune(path, config_of(), LABELS)
    require_labels_to_prune(None, config_of("pretrain_weights=timm"), LABELS[::-1])
    require_labels_to_prune(None, config_of(f"pretrain_weights={path}"), LABELS)
    for given, config in ((path, config_of()), (None, config_of(f"pretrain_weights={path}"))):
        with pytest.raises(CheckpointError, match="class 0 is '0' where the data says '9'"):
            require_labels_to_prune(given, config, LABELS[::-1])
    others = config_of(f"pretrain_weights={path}", "num_classes=2")
    require_labels_to_prune(None, others, ("cat", "dog"))
