from dataclasses import replace

import pytest

from flyweight.config.cut_options import CutOptions, split_list
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
