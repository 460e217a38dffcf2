from pathlib import Path

import pytest

from flyweight.config.scanning import RATIOS, SensitivityOptions
from flyweight.errors import PlanError
from flyweight.sensitivity import RATIOS as RATIOS_OF_A_SCAN


def test_by_default_every_tenth_of_every_layer_is_tried_on_all_images():
    options = SensitivityOptions()
    assert options.ratios == RATIOS == RATIOS_OF_A_SCAN
    assert (options.mode, options.layers, options.images) == ("exact", (), ())
    assert SensitivityOptions(images=(Path("a.png"),), mode="fast").mode == "fast"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"mode": "fats"}, r"Received 'fats' in --mode\. Nearest: 'fast'"),
        ({"mode": "fast", "ray": "auto"}, "must be fast or spread over a cluster"),
        ({"mode": "fast", "max_drop": 5.0}, r"between 0 and 1\. Received 5"),
        ({"mode": "fast", "max_drop": 0.0}, "between 0 and 1"),
    ],
)
def test_invalid_options(values, said):
    with pytest.raises(PlanError, match=said):
        SensitivityOptions(**values)
