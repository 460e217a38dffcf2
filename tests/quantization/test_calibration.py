import pytest
import torch

from flyweight.errors import PlanError
from flyweight.graph.example_inputs import Example
from flyweight.quantization.calibration import calibrated
from flyweight.quantization.placement import place
from flyweight.quantization.sites import record_sites


def test_grids_cover_what_the_float_network_computes(residual, images):
    recorded = record_sites(residual, Example((images[:1],)))
    done = []
    batches = [Example((part,)) for part in images.split(4)]
    plan = calibrated(residual, place(recorded), batches, method="minmax", shown=done.append)
    assert done == [1, 2, 3]
    with torch.no_grad():
        stem = residual.stem(images)
    assert plan.grids["stem.2.hardtanh"].scale == pytest.approx(float(stem.max()) / 255, rel=1e-4)
    assert plan.grids["stem.2.hardtanh"].zero_point == 0
    low, high = float(images.min()), float(images.max())
    assert plan.grids["args[0]"].scale == pytest.approx((high - low) / 255, rel=1e-4)


def test_no_batches_and_broken_values_are_named(residual, images):
    plan = place(record_sites(residual, Example((images[:1],))))
    with pytest.raises(PlanError, match="0 batches"):
        calibrated(residual, plan, [])
    with pytest.raises(PlanError, match=r"at 'args\[0\]': a value is not finite"):
        calibrated(residual, plan, [Example((images / 0,))])
