import pytest

from flyweight.config.budget import Budget
from flyweight.errors import PlanError


@pytest.mark.parametrize("wrong", [{}, {"macs": 0.5, "params": 0.5}, {"macs": 0}, {"macs": True}])
def test_budgets_that_cannot_be_meant(wrong):
    with pytest.raises(PlanError, match="must limit one thing"):
        Budget(**wrong)


def test_a_share_of_a_latency_is_below_one():
    with pytest.raises(PlanError, match=r"latency_share must be below 1.*Received 1\.5"):
        Budget(latency_share=1.5)
    assert Budget.parse("latency_ms=0.4") == Budget(latency_ms=0.4)
    assert Budget(latency_ms=0.4).measured
    assert not Budget(macs=0.4).measured


def test_budgets_as_text():
    assert Budget.parse("params=2e6") == Budget(params=2_000_000)
    assert Budget(params=2e6).limit(None) == 2e6
    for text in ("macs", "mac=0.5", "macs=few", "macs=-1"):
        with pytest.raises(PlanError, match="must read QUANTITY=NUMBER"):
            Budget.parse(text)


@pytest.mark.parametrize("quantity", ["macs", "params", "size_bytes"])
def test_between_a_share_and_an_amount_nothing_is_a_budget(quantity):
    for value in (1, 1.0, 2, 50, 999.9):
        with pytest.raises(
            PlanError, match=rf"Received {quantity}={value}.*{quantity}=0\.5 to keep"
        ):
            Budget(**{quantity: value})
    assert Budget(**{quantity: 1000}).value == 1000
    assert Budget(**{quantity: 0.999}).value == 0.999


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "0.5", -1])
def test_a_limit_is_a_finite_number_above_0(value):
    with pytest.raises(PlanError, match="must limit one thing"):
        Budget(macs=value)


def test_a_limit_in_amounts():
    class Dense:
        macs, params, size_bytes = 2_000_000, 4_000, 16_000

    assert Budget(macs=0.25).limit(Dense) == 500_000
    assert Budget(params=1500).limit(Dense) == 1500
    with pytest.raises(AttributeError):
        Budget(latency_share=0.5).limit(Dense)


@pytest.mark.parametrize(
    "budget", [Budget(macs=0.5), Budget(params=2_000_000), Budget(latency_ms=0.4)]
)
def test_text_and_mapping_and_back(budget):
    assert Budget.parse(str(budget)) == budget
    assert Budget.of(budget.plain()) == budget
    assert Budget.of(str(budget)) == budget
    assert Budget.of(budget) is budget


def test_a_mapping_names_its_quantity():
    assert Budget.of({"params": "2e6"}) == Budget(params=2e6)  # YAML 1.1 reads 2e6 as text
    with pytest.raises(PlanError, match=r"Received 'mac'\. Nearest: 'macs'\."):
        Budget.of({"mac": 0.5})
    with pytest.raises(PlanError, match="must limit one thing"):
        Budget.of({})
    with pytest.raises(PlanError, match=r"must be a mapping.*Received 0\.5"):
        Budget.of(0.5)


def test_an_unknown_quantity_is_told_the_nearest_and_a_known_one_is_not():
    with pytest.raises(PlanError, match="Nearest: 'macs'"):
        Budget.parse("mac=0.5")
    with pytest.raises(PlanError) as caught:
        Budget.parse("macs=-1")
    assert "Nearest" not in str(caught.value)
