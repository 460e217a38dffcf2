import pytest
import torch
from safetensors.torch import save_file

from flyweight import zoo
from flyweight.errors import CheckpointError, FileError
from flyweight.zoo.backbones.mobilenet_v1 import MobileNetV1
from flyweight.zoo.sources.weights import MismatchedTensor, fill, load_weights


def create(num_classes=3, width=0.25):
    return zoo.create("yolov3_mobilenet_v1", num_classes=num_classes, width=width)


def values(model, prefix=""):
    state = model.state_dict()
    return {name: value for name, value in state.items() if name.startswith(prefix)}


@pytest.fixture
def whole(tmp_path):
    torch.manual_seed(7)
    model = create()
    for name, value in model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            value.copy_(torch.rand(value.shape))
    path = tmp_path / "whole.safetensors"
    save_file(model.state_dict(), path)
    return model, path


def test_a_whole_checkpoint_fills_everything(whole):
    reference, path = whole
    model = create()
    account = load_weights(model, path, what="all")
    assert account.complete
    assert len(account.loaded) == 241
    assert not account.unused
    for name, value in values(reference).items():
        assert torch.equal(value, model.state_dict()[name]), name


def test_backbone_only_leaves_the_head_alone(whole):
    reference, path = whole
    model = create(num_classes=7)
    before = {name: value.clone() for name, value in values(model, "yolo").items()}
    account = load_weights(model, path)
    assert account.complete
    assert len(account.loaded) == 135
    assert account.unused
    assert all(name.startswith("yolo") for name in account.unused)
    for name, value in before.items():
        assert torch.equal(value, model.state_dict()[name])
    for name, value in values(reference, "backbone").items():
        assert torch.equal(value, model.state_dict()[name])


def test_other_classes_are_listed_with_both_shapes(whole):
    _, path = whole
    account = load_weights(create(num_classes=20), path, what="all")
    assert not account.complete
    assert MismatchedTensor("yolo_output.0.conv.bias", (75,), (24,)) in account.mismatched
    assert {entry.name for entry in account.mismatched} == {
        f"yolo_output.{scale}.conv.{kind}" for scale in range(3) for kind in ("weight", "bias")
    }
    assert len(account.loaded) == 241 - 6
    assert "6 mismatched: yolo_output.0.conv.weight (wanted (75, 256, 1, 1)" in str(account)


def test_a_backbone_file_of_our_own_names_fits_bare_and_within_a_detector(tmp_path, whole):
    reference, whole_path = whole
    path = tmp_path / "backbone.safetensors"
    save_file(reference.backbone.state_dict(), path)
    detector, bare, from_whole = create(), MobileNetV1(width=0.25), MobileNetV1(width=0.25)
    assert load_weights(detector, path).complete
    assert load_weights(bare, path).complete
    assert load_weights(from_whole, whole_path).complete
    for model in (detector.backbone, bare, from_whole):
        assert torch.equal(model.conv6.sep.conv.weight, reference.backbone.conv6.sep.conv.weight)


def test_missing_tensors_are_listed_and_keep_their_values(tmp_path, whole):
    reference, _ = whole
    state = dict(reference.state_dict())
    del state["backbone.conv3_1.dw.conv.weight"]
    state["stranger"] = torch.zeros(1)
    path = tmp_path / "part.safetensors"
    save_file(state, path)
    model = create()
    before = model.backbone.conv3_1.dw.conv.weight.clone()
    account = load_weights(model, path, what="all")
    assert account.missing == ("backbone.conv3_1.dw.conv.weight",)
    assert account.unused == ("stranger",)
    assert torch.equal(before, model.backbone.conv3_1.dw.conv.weight)


@pytest.mark.data
def test_half_precision_imagenet_weights_become_float32(data_root):
    from safetensors.torch import load_file

    path = data_root / "weights" / "mobilenetv1_025_imagenet.safetensors"
    model = create()
    account = load_weights(model, path)
    assert account.complete
    assert account.unused == ("classifier.bias", "classifier.weight")
    theirs = load_file(path)
    assert theirs["blocks.3.5.conv_pw.weight"].dtype == torch.float16
    assert model.backbone.conv5_5.sep.conv.weight.dtype == torch.float32
    assert torch.equal(
        model.backbone.conv5_5.sep.conv.weight, theirs["blocks.3.5.conv_pw.weight"].float()
    )


@pytest.mark.data
def test_the_backbone_of_the_coco_ssd_fits_at_three_quarters_width(data_root):
    account = load_weights(
        create(width=0.75), data_root / "weights" / "ssd_mobilenetv1_075_coco.safetensors"
    )
    assert account.complete
    assert not [name for name in account.unused if "backbone" in name]


@pytest.mark.data
def test_a_width_that_does_not_fit_is_one_letter(data_root):
    with pytest.raises(CheckpointError, match=r"0 tensors loaded; 135 mismatched") as error:
        load_weights(create(), data_root / "weights" / "mobilenetv1_100_imagenet.safetensors")
    assert "\n" not in str(error.value)


@pytest.mark.data
def test_another_architecture_is_one_letter(data_root):
    with pytest.raises(CheckpointError, match="same architecture"):
        load_weights(create(), data_root / "weights" / "cifar_resnet20.safetensors")


def test_a_truncated_file(tmp_path, whole):
    _, path = whole
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"cut\.safetensors.*damaged or truncated") as error:
        load_weights(create(), cut)
    assert "\n" not in str(error.value)


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was executed",))


def test_a_pickle_is_named_and_never_executed(tmp_path):
    zipped, plain = tmp_path / "zipped.pth", tmp_path / "plain.pdparams"
    torch.save({"weight": Bomb()}, zipped)
    torch.save({"weight": Bomb()}, plain, _use_new_zipfile_serialization=False)
    for path in (zipped, plain):
        with pytest.raises(CheckpointError, match="a pickle, which is never loaded"):
            load_weights(create(), path)


@pytest.mark.parametrize("content", [b"", b"{}", b"not weights at all, just words"])
def test_other_files(tmp_path, content):
    path = tmp_path / "words.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"words\.safetensors"):
        load_weights(create(), path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileError, match=r"nothing\.safetensors"):
        load_weights(create(), tmp_path / "nothing.safetensors")


def test_a_network_without_memory_is_refused(whole):
    _, path = whole
    with torch.device("meta"):
        model = create()
    with pytest.raises(CheckpointError, match="meta"):
        load_weights(model, path)


@pytest.mark.data
def test_a_classifier_of_torchvision_for_other_classes(data_root):
    path = data_root / "weights" / "mobilenet_v2_imagenet.safetensors"
    whole = zoo.create("torchvision/mobilenet_v2")
    assert load_weights(whole, path).complete
    account = load_weights(zoo.create("torchvision/mobilenet_v2", num_classes=10), path)
    assert [entry.name for entry in account.mismatched] == [
        "classifier.1.weight",
        "classifier.1.bias",
    ]
    assert (account.missing, account.unused) == ((), ())


@pytest.mark.data
def test_the_backbone_of_a_segmenter_in_timms_names(data_root):
    name = "tf_mobilenetv3_large_minimal_100"
    path = data_root / "weights" / f"{name}_imagenet.safetensors"
    assert load_weights(zoo.create(f"timm/{name}"), path).complete
    account = load_weights(zoo.create("deeplabv3p", num_classes=3, backbone=name), path)
    assert account.complete
    assert all(name.startswith(("backbone.conv_head", "backbone.class")) for name in account.unused)


def test_the_backbone_of_a_wrapped_network_in_torchvisions_names():
    source = zoo.create("torchvision/mobilenet_v3_large", num_classes=3)
    model = zoo.create("lraspp_mobilenet_v3_large", num_classes=4)
    account = fill(model, source.state_dict(), "somewhere")
    assert len(account.loaded) == sum("features." in name for name in _values_of(source))
    first = "network.backbone.0.0.weight"
    assert torch.equal(model.state_dict()[first], source.state_dict()["features.0.0.weight"])


def _values_of(model):
    return [name for name in model.state_dict() if "num_batches" not in name]
