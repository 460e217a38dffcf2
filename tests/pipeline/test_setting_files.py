import shutil

import pytest
import torch
from safetensors.torch import save_file

from flyweight.config.reading import load_config
from flyweight.errors import CheckpointError, FlyweightError
from flyweight.pipeline.setting_files import digest_of_checkpoint, digest_of_setting

NONE = ("prune.params=[]", "prune.ratios=[]")


def config_of(*overrides):
    return load_config("demo_digits", overrides)[1]


def test_weights_are_digested_by_their_tensors(tmp_path):
    weights = {"a": torch.ones(2), "b": torch.zeros(3)}
    save_file(weights, tmp_path / "one.safetensors")
    save_file(weights, tmp_path / "two.safetensors", metadata={"said": "something else"})
    save_file({**weights, "b": torch.ones(3)}, tmp_path / "three.safetensors")
    one, two, three = (
        digest_of_setting(config_of(f"pretrain_weights={tmp_path / name}"), "pretrain_weights")
        for name in ("one", "two", "three")
    )
    assert one == two != three
    (tmp_path / "half.safetensors").write_bytes(b"half")
    with pytest.raises(CheckpointError, match=r"half\.safetensors"):
        digest_of_checkpoint(tmp_path / "half.safetensors")
    (tmp_path / "old.bin").write_bytes(b"old")
    assert digest_of_checkpoint(tmp_path / "old.bin")


def test_words_stand_for_themselves():
    assert digest_of_setting(config_of(), "pretrain_weights") is None
    assert digest_of_setting(config_of("pretrain_weights=timm"), "pretrain_weights") == "timm"
    assert digest_of_setting(config_of(), "prune.scan") is None
    made = config_of(*NONE, "prune.scan=this_run", "prune.max_drop=0.1")
    assert digest_of_setting(made, "prune.scan") == "this_run"


def test_curves_and_tables_are_digested_by_their_contents(tmp_path):
    (tmp_path / "a.json").write_text("1")
    shutil.copy(tmp_path / "a.json", tmp_path / "b.json")
    first, second = (
        digest_of_setting(
            config_of(*NONE, f"prune.scan={path}", "prune.max_drop=0.1"), "prune.scan"
        )
        for path in (tmp_path / "a.json", tmp_path / "b.json")
    )
    assert first == second
    built_in = config_of(*NONE, "prune.scan=DEFAULT", "prune.max_drop=0.1")
    assert digest_of_setting(built_in, "prune.scan") not in (None, "DEFAULT", first)
    timed = ("prune.budget=latency_ms=3", f"prune.latency_table={tmp_path / 'a.json'}")
    table = config_of(*NONE, "prune.scan=DEFAULT", *timed)
    assert digest_of_setting(table, "prune.latency_table") == first
    with pytest.raises(FlyweightError, match="none"):
        digest_of_setting(config_of(*NONE, "prune.scan=none", "prune.max_drop=0.1"), "prune.scan")


def test_ground_truth_is_a_folder_of_files(tmp_path):
    (tmp_path / "truth").mkdir()
    config = config_of(f"data.root={tmp_path}", "data.ground_truth=truth")
    empty = digest_of_setting(config, "data.ground_truth")
    (tmp_path / "truth" / "wider_easy_val.mat").write_text("1")
    assert digest_of_setting(config, "data.ground_truth") != empty
    assert digest_of_setting(config_of(), "data.ground_truth") is None
