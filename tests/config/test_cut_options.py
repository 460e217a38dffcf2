from dataclasses import replace

import pytest

from flyweight.config.budget import Budget
from flyweight.config.cut_options import CutOptions, split_list
from flyweight.config.cuts import BudgetCut, MaxDropCut, RankingCut
from flyweight.config.pruning import PruneConfig
from flyweight.errors import PlanError

DEFAULT = PruneConfig(params=("a",), ratios=(0.5,), criterion="l2_norm", round_to=8)


def test_the_command_line_goes_before_the_config():
    assert not CutOptions("", "").given
    cut = CutOptions("", "").cut(DEFAULT)
    assert (cut.params, cut.ratios, cut.criterion, cut.round_to) == (("a",), (0.5,), "l2_norm", 8)
    told = CutOptions("b,c  d", ".1 .2,.3")
    assert told.given
    cut = replace(told, criterion="l1_norm").cut(DEFAULT)
    assert (cut.params, cut.ratios, cut.round_to) == (("b", "c", "d"), (0.1, 0.2, 0.3), 8)
    assert cut.criterion == "l1_norm"


def test_a_ratio_that_is_no_number():
    with pytest.raises(PlanError, match=r"Received 'half' in --pruned-ratios"):
        CutOptions("a", "half").cut(DEFAULT)


@pytest.mark.parametrize("text", ["a,b,c", "a b c", "a, b, c", " a\n b\tc ", "a,,b,c,", "a ,b ,c"])
def test_lists_split_on_commas_and_white_space(text):
    assert split_list(text) == ["a", "b", "c"]


def test_an_empty_list():
    assert split_list(" , ") == []


SCANNED = PruneConfig(scan="s.json", max_drop=0.1)
TIMED = PruneConfig(scan="s.json", budget="latency_ms=3", latency_table="t.json")
RANKED = PruneConfig(ranking="l2_norm", budget="macs=0.5")


@pytest.mark.parametrize(
    ("options", "default", "cut"),
    [
        (CutOptions(max_drop=0.2), SCANNED, MaxDropCut("s.json", 0.2)),
        (CutOptions(max_drop=0.0), SCANNED, MaxDropCut("s.json", 0.0)),
        (CutOptions(criterion="bn_scale"), SCANNED, MaxDropCut("s.json", 0.1, "bn_scale")),
        (CutOptions(criterion="taylor"), RANKED, RankingCut("taylor", Budget(macs=0.5))),
        (CutOptions(budget="params=0.3"), RANKED, RankingCut("l2_norm", Budget(params=0.3))),
        (
            CutOptions(latency_table="u.json"),
            TIMED,
            BudgetCut("s.json", Budget(latency_ms=3), latency_table="u.json"),
        ),
        (
            CutOptions(scan="s.json", budget="latency_share=0.5"),
            TIMED,
            BudgetCut("s.json", Budget(latency_share=0.5), latency_table="t.json"),
        ),
        (CutOptions(budget="macs=0.5"), PruneConfig(), RankingCut("l1_norm", Budget(macs=0.5))),
        (CutOptions(scan="s.json"), DEFAULT, MaxDropCut("s.json", 0.05, "l2_norm", 8)),
    ],
)
def test_what_the_options_do_not_say_is_the_configs(options, default, cut):
    assert options.cut(default) == cut


@pytest.mark.parametrize(
    ("options", "default", "said"),
    [
        (CutOptions(), PruneConfig(), "must have a cut"),
        (CutOptions(criterion="l2_norm"), PruneConfig(), "must have a cut"),
        (CutOptions(max_drop=0.1), DEFAULT, "--max-drop must come with a scan"),
        (CutOptions(latency_table="t"), DEFAULT, "must come with a latency budget"),
        (CutOptions(latency_table="t"), PruneConfig(), "must come with a latency budget"),
        (CutOptions(scan="s", budget="macs=0.5", latency_table="t"), DEFAULT, "latency budget"),
        (CutOptions(scan="s", budget="macs=0.5", max_drop=0.1), DEFAULT, "must have one limit"),
        (CutOptions(params="a", ratios=".5", scan="s"), DEFAULT, "--sensitivities and --pruned"),
        (CutOptions(ratios=".5", budget="macs=0.5"), DEFAULT, "--budget and --pruned"),
        (CutOptions(params="a", ratios=".5", max_drop=0.1), DEFAULT, "exactly one way"),
        (CutOptions(budget="macs=0.5", criterion="first"), DEFAULT, "Received 'first'"),
        (CutOptions(params="a"), DEFAULT, "1 parameter and 0 ratios"),
        (CutOptions(criterion="l1norm"), RANKED, "Nearest: 'l1_norm'"),
    ],
)
def test_options_that_are_no_cut(options, default, said):
    with pytest.raises(PlanError) as caught:
        options.cut(default)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
