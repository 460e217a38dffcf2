import torch

import flyweight as fw
from flyweight.quantization.frozen import frozen


def test_frozen_weights_compute_the_same(residual, images):
    quantized = fw.quantize(residual, images)
    constant = frozen(quantized)
    with torch.no_grad():
        assert torch.equal(constant(images), quantized(images))
    assert frozen(residual) is residual
