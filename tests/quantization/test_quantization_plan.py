import json

import pytest

from flyweight.errors import PlanError
from flyweight.quantization.quantization_plan import QuantizationPlan
from flyweight.quantization.quantize import plan_quantization


def test_a_plan_survives_as_text(residual, images):
    plan = plan_quantization(residual, images)
    text = plan.to_json()
    assert QuantizationPlan.from_json(text) == plan
    assert QuantizationPlan.from_json(text).to_json() == text
    assert set(plan.quantizers) == set(plan.grids)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.pop("layers"),
        lambda data: data.update(format=2),
        lambda data: data["grids"].update(x=[0.0, 1]),
        lambda data: data["grids"].update(x=["a", 1]),
        lambda data: data["layers"].update(x={"weight": 1}),
        lambda data: data.update(limits=[1]),
    ],
)
def test_damaged_text_is_refused_in_one_line(residual, images, change):
    data = json.loads(plan_quantization(residual, images).to_json())
    change(data)
    with pytest.raises(PlanError, match=r"plan of quantization must.*\. Quantize again\."):
        QuantizationPlan.from_json(json.dumps(data))
    with pytest.raises(PlanError):
        QuantizationPlan.from_json("[")
