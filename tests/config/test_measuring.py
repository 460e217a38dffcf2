import pytest

from flyweight.config.measuring import BenchConfig
from flyweight.errors import MeasureError


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"runs": 0}, "'runs' must be at least 1. Received: 0"),
        ({"blocks": 3}, "'blocks' must be at least 8. Received: 3"),
        ({"warmup": -1}, "'warmup' must be at least 0. Received: -1"),
        ({"seconds": 0.0}, "'seconds' must be above 0. Received: 0.0"),
    ],
)
def test_impossible_protocols_are_refused(values, message):
    with pytest.raises(MeasureError, match=message):
        BenchConfig(**values)
