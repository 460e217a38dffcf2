import pytest

from flyweight.config.training import TrainConfig, learning_rate_at
from flyweight.distillation.recipe import clip_norm_of, short_recipe

DENSE = TrainConfig(steps=9000, learning_rate=0.02, milestones=(6000,), batch_size=16)


@pytest.mark.parametrize(
    ("removed", "rate"), [(0.5, 0.01), (0.0, 0.002), (-3.0, 0.002), (0.99, 0.0198)]
)
def test_the_rate_is_the_share_removed_of_the_dense_one(removed, rate):
    assert short_recipe(DENSE, removed, 1000).learning_rate == pytest.approx(rate)
    repaired = short_recipe(DENSE, removed, 1000, repaired=True)
    assert repaired.learning_rate == pytest.approx(rate / 4)


@pytest.mark.parametrize("steps", [1, 2, 7, 30, 100000])
def test_a_recipe_of_any_length_is_valid_and_ends_at_nothing(steps):
    found = TrainConfig.model_validate(short_recipe(DENSE, 0.5, steps).model_dump())
    assert (found.steps, found.batch_size, found.patience) == (steps, 16, 5)
    assert found.evaluate_every >= 1
    assert 0.9 <= found.ema_decay <= 0.9998
    if steps > 20:
        assert learning_rate_at(found, steps - 1) < 0.05 * found.learning_rate
        assert learning_rate_at(found, 0) == 0


def test_gradients_of_cut_networks_may_be_larger():
    own = DENSE.model_copy(update={"clip_norm": 35.0})
    limits = {kind: clip_norm_of(kind, DENSE) for kind in ("classify", "detect", "segment")}
    assert limits == {"classify": 2.0, "detect": None, "segment": None}
    limits = {kind: clip_norm_of(kind, own) for kind in ("classify", "detect", "segment")}
    assert limits == {"classify": 35.0, "detect": 140.0, "segment": 35.0}
    assert short_recipe(own, 0.5, 100).clip_norm == 35
    assert short_recipe(own, 0.5, 100, clip_norm=140.0).clip_norm == 140
