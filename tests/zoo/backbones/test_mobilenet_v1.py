import pytest
import torch

from flyweight.zoo.backbones.mobilenet_v1 import PAIRS, MobileNetV1
from flyweight.zoo.sources.weights import load_weights


def test_taps_are_the_last_layers_at_strides_8_16_and_32():
    backbone = MobileNetV1()
    assert backbone.taps == ("conv4_1", "conv5_5", "conv6")
    assert backbone.channels == (256, 512, 1024)
    shapes = [tuple(level.shape) for level in backbone.eval()(torch.zeros(2, 3, 64, 96))]
    assert shapes == [(2, 256, 8, 12), (2, 512, 4, 6), (2, 1024, 2, 3)]


def test_values_are_those_of_the_paper():
    # 4.23 M with the classifier's 1,025,000 (arXiv 1704.04861, table 9 says 4.2 M).
    assert sum(value.numel() for value in MobileNetV1().parameters()) == 3_206_976


def test_other_taps():
    maps = MobileNetV1(width=0.25, taps=("conv2_1", "conv3_1")).eval()(torch.zeros(1, 3, 32, 32))
    assert [tuple(level.shape) for level in maps] == [(1, 16, 16, 16), (1, 32, 8, 8)]


@pytest.mark.parametrize(("width", "file"), [(1.0, "mobilenetv1_100"), (0.25, "mobilenetv1_025")])
@pytest.mark.data
def test_features_are_those_of_timm_with_the_same_weights(data_root, width, file):
    from safetensors.torch import load_file
    from timm.models.efficientnet import _gen_mobilenet_v1

    path = data_root / "weights" / f"{file}_imagenet.safetensors"
    theirs = _gen_mobilenet_v1(
        "mobilenetv1_100", width, pad_type="", act_layer="relu", features_only=True
    )
    kept = {name: value for name, value in load_file(path).items() if "classifier" not in name}
    report = theirs.load_state_dict(kept, strict=False)
    assert not [name for name in report.missing_keys if "num_batches" not in name]
    assert not report.unexpected_keys

    taps = ("conv2_1", "conv3_1", "conv4_1", "conv5_5", "conv6")
    ours = MobileNetV1(width=width, taps=taps)
    account = load_weights(ours, path)
    assert account.complete
    assert account.unused == ("classifier.bias", "classifier.weight")

    torch.manual_seed(0)
    images = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        pairs = zip(ours.eval()(images), theirs.eval()(images), strict=True)
        for mine, reference in pairs:
            torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-4)
            assert reference.std() > 0.1


def test_names_follow_the_table():
    names = dict(MobileNetV1(width=0.25).named_parameters())
    assert {name.split(".")[0] for name in names} == {"conv1", *(name for name, _, _ in PAIRS)}
    assert "conv5_6.dw.conv.weight" in names
    assert "conv6.sep.bn.bias" in names
