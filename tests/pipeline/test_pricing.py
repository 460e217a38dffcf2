import pytest

import flyweight as fw
from flyweight.config.pruning import PruneConfig
from flyweight.config.reading import load_config
from flyweight.errors import CheckpointError, PlanError
from flyweight.pipeline.inputs import Saver
from flyweight.pipeline.network_plans import build_model, prune_model
from flyweight.pipeline.pricing import cut_of, price
from flyweight.sensitivity import builtin_curves

SMALL = ("width=0.1", "input_size=64", "prune.round_to=4")
NONE = ("prune.params=[]", "prune.ratios=[]")


def config_of(*overrides):
    return load_config("demo_digits", (*SMALL, *overrides))[1]


def test_a_cut_is_priced_from_shapes():
    priced = price(config_of())
    assert priced.after.macs < priced.before.macs
    assert len(priced.plan.groups) == 18
    assert (priced.before_ms, priced.after_ms) == (None, None)


def test_a_ranking_is_priced_with_weights():
    said = []
    ranked = (*NONE, "prune.ranking=l1_norm", "prune.budget={macs: 0.5}")
    priced = price(config_of(*ranked), say=said.append)
    assert priced.after.macs <= 0.5 * priced.before.macs
    assert said == ["note: the ranking is of untrained weights; give -o weights=CHECKPOINT"]
    with pytest.raises(PlanError, match="--dry-run must rank by weights alone"):
        price(config_of(*NONE, "prune.ranking=taylor", "prune.budget={macs: 0.5}"))


def saved(path, *overrides):
    config = config_of(*overrides)
    Saver(config, tuple("0123456789"), "detect")(build_model(config), {}, path)
    return path


def test_the_weights_that_are_given_are_priced(tmp_path):
    said, dense = [], saved(tmp_path / "dense.safetensors")
    model, made = prune_model(fw.load(dense), config_of().preprocessing, config_of().prune.cut)
    small = tmp_path / "small.safetensors"
    fw.save(model, small, labels=tuple("0123456789"))
    priced = price(config_of(f"weights={small}"), say=said.append)
    name = "yolo_block.0.0.0.conv.weight"
    assert priced.plan.groups[name].channels == len(made.groups[name].keep)
    assert said == [
        f"weights: {small}",
        "note: these weights are pruned already; they are cut further",
    ]
    with pytest.raises(CheckpointError, match=r"width 0.1 where the config says 0.2"):
        price(config_of(f"weights={dense}", "width=0.2"))
    names = "data.labels=[b, a, c, d, e, f, g, h, i, j]"
    with pytest.raises(CheckpointError, match="class 0 is '0' where the data says 'b'"):
        price(config_of(f"weights={dense}", names))


def test_the_network_in_the_run_folder_is_priced_where_it_fits(tmp_path):
    said, folder = [], tmp_path / "run"
    folder.mkdir()
    best = saved(folder / "best_model.safetensors")
    price(config_of(f"save_dir={tmp_path}"), name="run", say=said.append)
    price(config_of(f"save_dir={tmp_path}", "width=0.2"), name="run", say=said.append)
    price(config_of(f"save_dir={tmp_path}"), name="other", say=said.append)
    assert said[0] == f"weights: {best}"
    assert said[1].startswith("note: priced without the weights in the run folder. A checkpoint")
    assert len(said) == 2


def test_curves_that_come_with_flyweight_are_found_and_named():
    wanted, said = PruneConfig(scan="DEFAULT", max_drop=0.05), []
    cut = cut_of(wanted, "yolov3_mobilenet_v1", said.append)
    assert cut.scan == str(builtin_curves("yolov3_mobilenet_v1"))
    assert said[0].startswith("note: DEFAULT: measured on BCCD")


def test_nothing_to_cut_and_files_that_a_chain_makes():
    with pytest.raises(PlanError, match="must have a cut"):
        cut_of(PruneConfig(), "unet", print)
    with pytest.raises(PlanError, match="must name the file of its scan"):
        cut_of(PruneConfig(scan="this_run", max_drop=0.05), "unet", print)
