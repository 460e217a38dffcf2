import pytest

from flyweight.config.pruning import PruneConfig
from flyweight.config.reading import load_config
from flyweight.errors import PlanError
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
