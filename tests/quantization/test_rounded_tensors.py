import numpy as np
import torch

import flyweight as fw
from flyweight.quantization.frozen import frozen
from flyweight.quantization.network import forward_of, plan_of
from flyweight.quantization.rounded_tensors import rounded_tensors


def test_every_quantizer_is_seen_with_its_integers(residual, images):
    quantized = frozen(fw.quantize(residual, images)).eval()
    forward = forward_of(quantized)
    found = rounded_tensors(forward, lambda: quantized(images[:1]))
    plan = plan_of(quantized)
    assert {one.quantizer for one in found} == set(plan.quantizers)
    first, grid = found[0], plan.grids[found[0].quantizer]
    levels = torch.round(images[:1] / grid.scale) + grid.zero_point
    assert np.array_equal(first.integers, levels.clamp(0, 255).numpy())
    assert (first.scale, first.zero_point) == (np.float32(grid.scale), grid.zero_point)
    # The network is as before.
    assert "result" not in vars(forward)
