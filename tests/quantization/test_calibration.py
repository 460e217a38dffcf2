import pytest
import torch

from flyweight.errors import PlanError
from flyweight.graph.example_inputs import Example
from flyweight.quantization.calibration import channel_axis, observe, with_grids
from flyweight.quantization.placement import place
from flyweight.quantization.sites import record_sites


def test_grids_cover_what_the_float_network_computes(residual, images):
    recorded = record_sites(residual, Example((images[:1],)))
    done = []
    batches = [Example((part,)) for part in images.split(4)]
    observed = observe(residual, place(recorded), batches, shown=done.append)
    plan = with_grids(place(recorded), observed, method="minmax")
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
        with_grids(plan, observe(residual, plan, []))
    with pytest.raises(PlanError, match=r"at 'args\[0\]': a value is not finite"):
        observe(residual, plan, [Example((images / 0,))])


def test_the_moments_of_channels_are_those_of_the_normalised_layer(residual, images):
    plan = place(record_sites(residual, Example((images[:1],))))
    batches = [Example((part,)) for part in images.split(5)]
    moments = observe(residual, plan, batches).channels["stem.0.conv2d"]
    with torch.no_grad():
        values = residual.stem[:2](images).transpose(0, 1).flatten(1).double()
    assert torch.from_numpy(moments.mean).allclose(values.mean(1), atol=1e-5)
    assert torch.from_numpy(moments.deviation).allclose(values.std(1, correction=0), rtol=1e-4)
    assert torch.from_numpy(moments.highest).allclose(values.amax(1), rtol=1e-4)


def test_channels_lie_before_the_axes_of_the_kernel():
    assert channel_axis(torch.ones(4, 3, 1, 1), torch.ones(2, 4, 5, 6)) == 1
    assert channel_axis(torch.ones(4, 3), torch.ones(2, 7, 4)) == 2
    assert channel_axis(torch.ones(4, 3, 1), torch.ones(4, 9)) == 0
