import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional

from flyweight.graph import trace
from flyweight.measuring.layer_files import save_layers
from flyweight.measuring.timed_layers import timed_layers

LAYERS = {
    "strided": nn.Conv2d(4, 8, 3, 2, 1),
    "dilated": nn.Conv2d(4, 8, 3, padding=(2, 1), dilation=(2, 1)),
    "grouped": nn.Conv2d(4, 8, 3, groups=2),
    "depthwise": nn.Conv2d(4, 8, 3, groups=4),
    "transposed": nn.ConvTranspose2d(4, 8, 3, 2, 1, 1),
    "linear": nn.Linear(4, 8),
}


def layer_of(module):
    shape = (3, 4) if isinstance(module, nn.Linear) else (1, 4, 9, 7)
    return timed_layers(trace(module.eval(), (torch.rand(shape),)))[0]


@pytest.mark.parametrize("name", LAYERS)
def test_the_files_compute_what_the_network_does(tmp_path, name):
    module = LAYERS[name]
    geometry = layer_of(module).geometry
    widths = [(4, 8), (8, 16)]
    save_layers(tmp_path / "a.onnx", geometry, widths)
    weights = {
        tensor.name: torch.tensor(numpy_helper.to_array(tensor))
        for tensor in onnx.load(tmp_path / "a.onnx").graph.initializer
    }
    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"))
    feed = {
        item.name: np.random.default_rng(0).random(item.shape, np.float32)
        for item in session.get_inputs()
    }
    for place, found in enumerate(session.run(["layer0", "layer1"], feed)):
        source = torch.tensor(feed[f"channels{widths[place][0]}"])
        own = [weights[f"layer{place}.{kind}"] for kind in ("weight", "bias")]
        if name == "linear":
            wanted = functional.linear(source, *own)
        else:
            groups = module.groups * (place + 1) if name == "depthwise" else module.groups
            more = [module.output_padding] if name == "transposed" else []
            compute = functional.conv_transpose2d if more else functional.conv2d
            order = [groups, module.dilation] if more else [module.dilation, groups]
            wanted = compute(source, *own, module.stride, module.padding, *more, *order)
        assert torch.allclose(torch.tensor(found), wanted, atol=1e-4)
