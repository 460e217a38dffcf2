import pytest
import torch
from torch import nn

from flyweight import zoo
from flyweight.zoo.detectors.yolo import COCO_GEOMETRY

HEAD = [
    f"yolo_block.{scale}.{layer}.conv.weight"
    for scale in range(3)
    for layer in ("0.0", "0.1", "1.0", "1.1", "2", "tip")
]
# Output channels of the 18, from the table in section 5 of the cost accounting.
HEAD_CHANNELS = [512, 1024, 512, 1024, 512, 1024, 256, 512, 256, 512, 256, 512, 128, 256, 128]
HEAD_CHANNELS += [256, 128, 256]


def create(num_classes=80, width=1.0):
    with torch.device("meta"):
        return zoo.create("yolov3_mobilenet_v1", num_classes=num_classes, width=width).eval()


def count_macs(model, height, width):
    """Multiply-adds of all convolutions, counted by hooks on a meta device run."""
    total = 0

    def add(module, _, output):
        nonlocal total
        positions = output.shape[-2] * output.shape[-1]
        total += positions * module.weight.numel()

    hooks = [
        module.register_forward_hook(add)
        for module in model.modules()
        if isinstance(module, nn.Conv2d)
    ]
    with torch.device("meta"):
        model(torch.empty(1, 3, height, width))
    for hook in hooks:
        hook.remove()
    return total


@pytest.mark.parametrize(
    ("num_classes", "with_statistics", "trainable", "unknown_shape"),
    [(80, 24_609_981, 24_571_197, 24_531_648), (20, 24_286_881, 24_248_097, 24_209_088)],
)
def test_value_counts_are_the_originals(num_classes, with_statistics, trainable, unknown_shape):
    model = create(num_classes)
    state = model.state_dict()
    values = [value for name, value in state.items() if not name.endswith("num_batches_tracked")]
    assert sum(value.numel() for value in values) == with_statistics
    assert sum(value.numel() for value in model.parameters()) == trainable
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert sum(module.weight.numel() for module in convolutions) == unknown_shape
    # One file per variable was written in 2020, biases and statistics included.
    assert len(values) == 241


@pytest.mark.parametrize(
    ("num_classes", "side", "giga_macs"),
    [
        (80, 320, 6.1386),
        (80, 416, 10.3743),
        (80, 608, 22.1604),
        (20, 320, 6.0096),
        (20, 416, 10.1562),
        (20, 608, 21.6947),
    ],
)
def test_macs_are_the_originals(num_classes, side, giga_macs):
    assert round(count_macs(create(num_classes), side, side) / 1e9, 4) == giga_macs


def test_macs_in_binary_giga_as_published():
    assert round(count_macs(create(80), 608, 608) / 2**30, 4) == 20.6385
    assert round(count_macs(create(20), 608, 608) / 2**30, 4) == 20.2047


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_macs_agree_with_fvcore():
    from fvcore.nn import FlopCountAnalysis

    model = zoo.create("yolov3_mobilenet_v1", num_classes=3, width=0.25).eval()
    analysis = FlopCountAnalysis(model, torch.zeros(1, 3, 64, 96))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    assert analysis.by_operator()["conv"] == count_macs(create(3, 0.25), 64, 96)


def test_the_eighteen_head_parameters_have_the_originals_names_and_widths():
    parameters = dict(create().named_parameters())
    assert [parameters[name].shape[0] for name in HEAD] == HEAD_CHANNELS
    found = [name for name in parameters if name.startswith("yolo_block") and "conv" in name]
    assert found == HEAD
    kernels = [parameters[name].shape[-1] for name in HEAD]
    assert kernels == [1, 3, 1, 3, 1, 3] * 3


def test_transitions_and_outputs():
    parameters = dict(create(20).named_parameters())
    shapes = {name: tuple(value.shape) for name, value in parameters.items()}
    assert shapes["yolo_transition.0.conv.weight"] == (256, 512, 1, 1)
    assert shapes["yolo_transition.1.conv.weight"] == (128, 256, 1, 1)
    assert shapes["yolo_transition.0.bn.weight"] == (256,)
    for scale, in_channels in enumerate((1024, 512, 256)):
        assert shapes[f"yolo_output.{scale}.conv.weight"] == (75, in_channels, 1, 1)
        assert shapes[f"yolo_output.{scale}.conv.bias"] == (75,)
    assert shapes["yolo_block.1.0.0.conv.weight"] == (256, 512 + 256, 1, 1)
    assert shapes["yolo_block.2.0.0.conv.weight"] == (128, 256 + 128, 1, 1)
    assert (
        len([name for name in shapes if name.startswith("yolo_transition") and "conv" in name]) == 2
    )


def test_the_route_comes_before_the_feature_in_the_join():
    model = zoo.create("yolov3_mobilenet_v1", num_classes=1, width=0.25).eval()
    joined = {}
    model.yolo_block[1].register_forward_pre_hook(lambda _, inputs: joined.update(at=inputs[0]))
    features = {}
    model.backbone.register_forward_hook(lambda _, __, maps: features.update(at=maps))
    with torch.no_grad():
        model(torch.randn(1, 3, 64, 64))
    assert torch.equal(joined["at"][:, -features["at"][1].shape[1] :], features["at"][1])
    # Nearest doubling: each 2 x 2 cell of the route is one value.
    route = joined["at"][:, : -features["at"][1].shape[1]]
    assert torch.equal(route[..., ::2, ::2], route[..., 1::2, 1::2])


def test_norms_are_the_originals():
    norms = [module for module in create().modules() if isinstance(module, nn.BatchNorm2d)]
    # Paddle's momentum .9 is the share of the old value, torch's .1 that of the new.
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-5, 0.1)}
    slopes = [m.negative_slope for m in create().modules() if isinstance(m, nn.LeakyReLU)]
    assert slopes == [0.1] * 20


@pytest.mark.parametrize(("width", "num_classes"), [(1.0, 80), (0.5, 20), (0.25, 3), (0.1, 1)])
def test_maps_at_every_width(width, num_classes):
    with torch.device("meta"):
        maps = create(num_classes, width)(torch.empty(2, 3, 96, 160))
    channels = 3 * (5 + num_classes)
    expected = [(2, channels, 3, 5), (2, channels, 6, 10), (2, channels, 12, 20)]
    assert [tuple(level.shape) for level in maps] == expected


def test_a_narrow_network_is_narrow_everywhere():
    wide, narrow = dict(create().named_parameters()), dict(create(width=0.25).named_parameters())
    assert wide.keys() == narrow.keys()
    for name, value in wide.items():
        if not name.startswith("yolo_output"):
            assert narrow[name].shape[0] * 4 == value.shape[0], name


def test_it_starts_with_few_objects_everywhere():
    torch.manual_seed(0)
    model = zoo.create("yolov3_mobilenet_v1", num_classes=4, width=0.25).eval()
    with torch.no_grad():
        for level in model(torch.randn(1, 3, 64, 64)):
            objectness = level.view(1, 3, 9, *level.shape[2:])[:, :, 4].sigmoid()
            assert 0.003 < objectness.mean() < 0.03


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_it_traces(device):
    with torch.device(device):
        model = zoo.create("yolov3_mobilenet_v1", num_classes=3, width=0.25).eval()
        images = torch.zeros(1, 3, 64, 64)
    program = torch.export.export(model, (images,), strict=False)
    shapes = [tuple(node.meta["val"].shape) for node in program.graph.output_node().args[0]]
    assert shapes == [(1, 24, 2, 2), (1, 24, 4, 4), (1, 24, 8, 8)]
    assert set(dict(model.named_parameters())) == set(program.graph_signature.parameters)


def test_geometry_names_the_anchors_of_a_map():
    assert COCO_GEOMETRY.anchors_of(0) == ((116, 90), (156, 198), (373, 326))
    assert COCO_GEOMETRY.anchors_of(2) == ((10, 13), (16, 30), (33, 23))


@pytest.mark.slow
def test_onnx_agrees(tmp_path):
    import numpy as np
    import onnxruntime

    torch.manual_seed(0)
    model = zoo.create("yolov3_mobilenet_v1", num_classes=3, width=0.25).eval()
    images = torch.randn(1, 3, 96, 64)
    path = tmp_path / "model.onnx"
    torch.onnx.export(model, (images,), path, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    with torch.no_grad():
        for mine, theirs in zip(model(images), found, strict=True):
            np.testing.assert_allclose(mine.numpy(), theirs, atol=1e-4)
