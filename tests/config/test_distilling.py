import pytest

from flyweight.config.distilling import DistillConfig, require_strategy
from flyweight.config.reading import load_config
from flyweight.errors import ConfigError


def read(*overrides):
    return load_config("demo_digits", overrides)[1].distill


def test_a_chain_has_the_stage_where_the_section_is_given():
    assert not read().in_chain
    assert read("distill.strategy=pkd").in_chain
    assert not read("distill.strategy=pkd", "distill.in_chain=false").in_chain


def test_the_originals_key_chooses_their_losses():
    assert read().strategy_name == "auto"
    assert read("use_fine_grained_loss=true").strategy_name == "split"
    assert read("use_fine_grained_loss=false").strategy_name == "l2"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["distill.teacher=a", "distill.teacher_config=b"], "not both"),
        (["distill.teacher_config=b"], "must be given together"),
        (["distill.strategy=l2", "use_fine_grained_loss=true"], "not both"),
        (["distill.weight=0"], "greater than 0"),
    ],
)
def test_what_contradicts_itself_is_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        read(*overrides)


def test_names_of_strategies_are_checked_without_torch():
    for name in ("auto", "pkd", "split_distiil"):
        require_strategy(name)
    with pytest.raises(ConfigError, match=r"one of auto, kl.*Nearest: 'split'"):
        require_strategy("splits")


def test_a_teacher_is_named_in_either_way():
    assert not DistillConfig().names_teacher
    assert DistillConfig(teacher="a").names_teacher
    assert DistillConfig(teacher_config="a", teacher_pretrained="b").names_teacher
