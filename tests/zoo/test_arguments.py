import pytest

from flyweight.errors import ConfigError
from flyweight.zoo.arguments import require_factor, require_num_classes


@pytest.mark.parametrize("value", [1, 80])
def test_numbers_of_classes(value):
    require_num_classes(value)


@pytest.mark.parametrize("value", [0, -1, 2.5, True, "20", None])
def test_what_counts_no_classes(value):
    with pytest.raises(ConfigError, match="num_classes must be a whole number") as error:
        require_num_classes(value)
    assert repr(value) in str(error.value)


@pytest.mark.parametrize("value", [0.1, 1, 4.0])
def test_factors(value):
    require_factor("width", value)


@pytest.mark.parametrize("value", [0, -1.0, 4.1, float("nan"), True, "wide"])
def test_what_cannot_multiply(value):
    with pytest.raises(ConfigError, match=r"^depth must be a number above 0") as error:
        require_factor("depth", value)
    assert repr(value) in str(error.value)
