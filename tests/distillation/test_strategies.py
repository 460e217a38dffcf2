import pytest

from flyweight.config.distilling import STRATEGY_NAMES, STRATEGY_WORDS
from flyweight.distillation.strategies import (
    AUTOMATIC,
    STRATEGIES,
    Strategy,
    Term,
    strategy_for,
)
from flyweight.distillation.terms import require_losses
from flyweight.errors import ConfigError


def test_every_strategy_names_losses_that_exist():
    for strategy in STRATEGIES.values():
        require_losses(strategy)
    for strategy in AUTOMATIC.values():
        assert strategy.name == "auto"
        require_losses(strategy)


def test_the_originals_weights_are_100_and_1000():
    weights = {name: [term.weight for term in STRATEGIES[name].terms] for name in ("l2", "split")}
    assert weights == {"l2": [100.0], "split": [1000.0]}


def test_names_and_their_old_spellings_are_found():
    assert strategy_for("split_distiil", "yolo") is STRATEGIES["split"]
    assert strategy_for(None, "yolo") == AUTOMATIC["yolo"]
    own = Strategy("mine", (Term("kl", "outputs", 2.0),))
    assert strategy_for(own, "classes") is own
    assert own.scaled(0.5).terms[0].weight == 1.0
    with pytest.raises(ConfigError, match="Nearest: 'mimic'"):
        strategy_for("mimick", "yolo")


def test_the_names_of_the_config_are_those_of_the_table():
    assert set(STRATEGY_NAMES) == set(STRATEGIES)
    assert set(STRATEGY_WORDS.values()) <= set(STRATEGIES)


def test_a_loss_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match="A loss on outputs must be one of kl"):
        require_losses(Strategy("mine", (Term("pkd", "outputs"),)))
