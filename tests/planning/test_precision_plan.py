import itertools
import json
import random

import pytest

from flyweight.errors import PlanError
from flyweight.planning.precision_plan import (
    SLACK,
    LayerCosts,
    PrecisionTable,
    choose_precisions,
    plan_with,
)
from flyweight.quantization.layer_flow import Flow

MILLION = 1_000_000


def chain(times, *, conversion_ms=0.0, losses=(), elements=MILLION):
    """Return the table of layers that follow each other: (float ms, integer ms or None)."""
    names = [f"layer{place}" for place in range(len(times))]
    losses = losses or [0.0] * len(times)
    layers = {
        name: LayerCosts(*pair, loss, "" if pair[1] is not None else "no kernel")
        for name, pair, loss in zip(names, times, losses, strict=True)
    }
    flows = tuple(Flow(one, two, elements) for one, two in itertools.pairwise(names))
    return PrecisionTable({"runtime": "onnxruntime 1.0"}, layers, flows, conversion_ms)


def test_layers_that_are_faster_on_integers_run_on_them():
    plan = choose_precisions(chain([(2.0, 1.0), (1.0, 3.0), (2.0, 1.0)]))
    assert plan.integer == ("layer0", "layer2")
    assert plan.predicted_ms == pytest.approx(3.0)
    assert plan.float_ms == pytest.approx(5.0)
    assert plan.floats == {
        "layer1": "no faster on integers: 1.000 ms in float, 3.000 ms on integers"
    }


def test_conversions_may_cost_more_than_integers_gain():
    # A gain of 0.5 ms between two float layers, for two conversions of 0.4 ms.
    plan = choose_precisions(chain([(1, 3), (1.0, 0.5), (1, 3)], conversion_ms=0.4))
    assert plan.integer == ()
    assert plan.floats["layer1"] == (
        "no faster on integers: 1.000 ms in float, 0.500 ms on integers, +0.800 ms of conversions"
    )


def test_a_slower_integer_layer_between_integer_layers_saves_conversions():
    plan = choose_precisions(chain([(3, 1), (1.0, 1.2), (3, 1)], conversion_ms=0.4))
    assert plan.integer == ("layer0", "layer1", "layer2")
    assert plan.floats == {}


def test_a_gain_that_no_measurement_shows_is_not_worth_a_loss():
    table = chain([(10.0, 5.0), (1.0, 0.95)], losses=[0.1, 0.2])
    plan = choose_precisions(table)
    assert plan.integer == ("layer0",)
    assert plan.floats["layer1"].startswith("its loss of 0.2 is not worth 0.050 ms")
    assert plan.loss == pytest.approx(0.1)
    assert choose_precisions(chain([(10.0, 5.0), (1.0, 0.5)], losses=[0.1, 0.2])).floats == {}


def test_layers_without_a_choice_stay_and_have_no_conversions():
    table = chain([(1.0, 0.5), (1.0, None), (1.0, 0.5)], conversion_ms=5.0)
    plan = choose_precisions(table)
    assert plan.integer == ("layer0", "layer2")
    assert plan.floats == {"layer1": "no kernel"}
    assert plan.predicted_ms == pytest.approx(2.0)
    assert choose_precisions(chain([(1.0, None)])).integer == ()


@pytest.mark.parametrize("seed", range(6))
def test_choices_are_the_best_of_all(seed):
    draw = random.Random(seed)
    table = chain(
        [(draw.random(), draw.random()) for _ in range(6)],
        conversion_ms=draw.random() / 3,
        losses=[draw.random() for _ in range(6)],
    )
    flows = (*table.flows, Flow("layer0", "layer4", MILLION / 2))
    table = PrecisionTable(table.made_on, table.layers, flows, table.conversion_ms)
    every = [
        tuple(itertools.compress(table.layers, chosen))
        for chosen in itertools.product((0, 1), repeat=6)
    ]
    times = {one: table.predict_ms(one) for one in every}
    losses = {one: sum(table.layers[name].loss for name in one) for one in every}
    least = min(times.values())
    allowed = least * (1 + SLACK)
    plan = choose_precisions(table)
    assert times[plan.integer] <= allowed + 1e-9
    wanted = min(loss for one, loss in losses.items() if times[one] <= allowed)
    assert losses[plan.integer] == pytest.approx(wanted)
    limit = (least + times[()]) / 2
    plan = choose_precisions(table, limit)
    wanted = min(loss for one, loss in losses.items() if times[one] <= limit)
    assert losses[plan.integer] == pytest.approx(wanted)


def test_a_budget_that_cannot_be_met_states_the_fastest():
    with pytest.raises(PlanError, match=r"0\.500 ms; the fastest choice takes 1\.000 of 2\.000 ms"):
        choose_precisions(chain([(2.0, 1.0)]), 0.5)


def test_the_price_of_conversions_follows_from_a_mixed_file():
    table = chain([(1.0, 0.5)] * 4)
    assert table.alternating == ("layer0", "layer2")
    # Three conversions of a million values took 0.6 ms together.
    priced = table.with_conversions(table.alternating, 3.0 + 0.6)
    assert priced.conversion_ms == pytest.approx(0.2)
    assert priced.predict_ms(table.alternating) == pytest.approx(3.6)
    assert table.with_conversions(table.alternating, 2.9).conversion_ms == 0.0
    assert table.with_conversions((), 9.0).conversion_ms == 0.0


def test_the_plan_is_plain_json():
    plan = plan_with(chain([(2.0, 1.0), (1.0, None)]), ("layer0",))
    values = json.loads(plan.to_json())
    assert values == plan.plain()
    assert values["integer"] == ["layer0"]
    assert values["float"] == {"layer1": "no kernel"}
    assert (values["predicted_ms"], values["float_ms"]) == (2.0, 3.0)
