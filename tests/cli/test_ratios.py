import pytest

from flyweight.cli.ratios import Ratios
from flyweight.config.settings import PruneConfig
from flyweight.errors import PlanError

DEFAULT = PruneConfig(params=("a",), ratios=(0.5,), criterion="l2_norm", round_to=8)


def test_the_command_line_goes_before_the_config():
    assert not Ratios("", "").given
    cut = Ratios("", "").cut(DEFAULT)
    assert (cut.params, cut.ratios, cut.criterion, cut.round_to) == (("a",), (0.5,), "l2_norm", 8)
    told = Ratios("b,c  d", ".1 .2,.3")
    assert told.given
    cut = told.cut(DEFAULT, "l1_norm")
    assert (cut.params, cut.ratios, cut.round_to) == (("b", "c", "d"), (0.1, 0.2, 0.3), 8)
    assert cut.criterion == "l1_norm"


def test_a_ratio_that_is_no_number():
    with pytest.raises(PlanError, match=r"Received 'half' in --pruned-ratios"):
        Ratios("a", "half").cut(DEFAULT)
