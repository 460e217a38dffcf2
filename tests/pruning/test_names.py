import pytest

from flyweight.errors import PlanError
from flyweight.pruning import resolve
from flyweight.pruning.names import resolve_group

KNOWN = ["tip.conv.weight", "tip.conv.bias", "tip.bn.weight", "tip.bn.bias", "tip.bn.running_var"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("tip.conv.weight", "tip.conv.weight"),
        ("tip.conv.weights", "tip.conv.weight"),
        ("tip.bn.scale", "tip.bn.weight"),
        ("tip.bn.offset", "tip.bn.bias"),
        ("tip.bn.var", "tip.bn.running_var"),
        ("tip.bn.variance", "tip.bn.running_var"),
        ("res4_weights", "tip.conv.weight"),
    ],
)
def test_old_spellings(name, meant):
    assert resolve(name, KNOWN, {"res4_weights": "tip.conv.weight"}) == meant


def test_the_models_own_name_wins_over_an_alias():
    assert resolve("tip.conv.bias", KNOWN, {"tip.conv.bias": "tip.conv.weight"}) == "tip.conv.bias"


def test_an_unknown_name_is_one_line_with_the_nearest():
    with pytest.raises(PlanError) as caught:
        resolve("tip.conv.wieght", KNOWN)
    message = str(caught.value)
    assert "Received 'tip.conv.wieght'. Nearest: 'tip.conv.weight'." in message
    assert "flyweight params -c CONFIG" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("both.weight", "both.weight"),
        ("both.weight[4:]", "both.weight[4:]"),
        ("both.weights[axis1][4:]", "both.weight[axis1][4:]"),
        ("old[4:]", "both.weight[4:]"),
        ("old", "both.weight"),
    ],
)
def test_groups_that_are_parts_of_a_parameter(name, meant):
    groups = ["both.weight", "both.weight[4:]", "both.weight[axis1][4:]"]
    assert resolve_group(name, groups, ["both.weight"], {"old": "both.weight"}) == meant


def test_a_part_that_does_not_exist():
    with pytest.raises(PlanError, match=r"Received 'both.weight\[5:\]'. Nearest: 'both.weight'."):
        resolve_group("both.weight[5:]", ["both.weight[4:]"], ["both.weight"])
