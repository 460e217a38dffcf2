import pytest
from pydantic import ValidationError

from flyweight.config.budget import Budget
from flyweight.config.quantization import QuantizeConfig
from flyweight.config.training import TrainConfig

FINETUNE = TrainConfig(steps=100, learning_rate=0.01, warmup_steps=10, precision="bf16")


def test_training_is_fine_tuning_at_a_tenth_of_its_rate():
    found = QuantizeConfig().training(FINETUNE)
    assert (found.steps, found.warmup_steps, found.precision) == (100, 0, "32")
    assert found.learning_rate == pytest.approx(0.001)


def test_training_of_its_own_has_32_bits():
    own = TrainConfig(steps=7, learning_rate=0.5, warmup_steps=2, precision="bf16")
    found = QuantizeConfig(train=own).training(FINETUNE)
    assert (found.steps, found.learning_rate, found.warmup_steps) == (7, 0.5, 2)
    assert found.precision == "32"


@pytest.mark.parametrize(
    "wrong", [{"mode": "both"}, {"images": 0}, {"weight_bits": 4}, {"percentile": 50}]
)
def test_wrong_values_are_refused(wrong):
    with pytest.raises(ValidationError):
        QuantizeConfig(**wrong)


def test_a_budget_limits_latency_and_chooses_precisions():
    found = QuantizeConfig(budget="latency_share=0.25")
    assert found.budget == Budget(latency_share=0.25)
    assert found.chooses
    assert QuantizeConfig(precision="auto").chooses
    assert not QuantizeConfig().chooses
    assert found.model_dump(mode="json")["budget"] == {"latency_share": 0.25}
    with pytest.raises(ValidationError, match="must limit latency_ms or latency_share"):
        QuantizeConfig(budget={"macs": 0.5})
