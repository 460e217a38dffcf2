import logging
import types
import warnings
from collections import namedtuple

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from torch import nn
from torch.nn.utils import prune, weight_norm

from flyweight.errors import ConfigError, ExportError, FlyweightError, MeasureError
from flyweight.exporting import onnx as onnx_export
from flyweight.exporting.model_card import read_metadata
from flyweight.exporting.onnx import OPSET, OnnxConfig, to_onnx

Pair = namedtuple("Pair", "image gain")
EXAMPLE = (torch.linspace(-1, 1, 3 * 16 * 16).reshape(1, 3, 16, 16),)


@pytest.fixture
def exported(small_net, card, tmp_path):
    config = OnnxConfig(output_names=("features", "logits"))
    return to_onnx(small_net, tmp_path / "m.onnx", example=EXAMPLE, card=card, config=config)


def test_the_file_says_what_the_model_says(exported, small_net):
    session = onnxruntime.InferenceSession(str(exported.path))
    images = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    received = session.run(["features", "logits"], {"images": images.numpy()})
    expected = small_net.eval()(images)
    for ours, theirs in zip(expected, received, strict=True):
        np.testing.assert_allclose(theirs, ours.detach(), rtol=1e-4, atol=1e-4)
    assert set(exported.max_error) == {"features", "logits"}
    assert max(exported.max_error.values()) < 1e-5
    assert exported.size_bytes == exported.path.stat().st_size
    assert exported.opset == OPSET == 20


def test_normalisations_are_folded_and_nothing_of_training_or_this_machine_is_left(exported):
    proto = onnx.load(exported.path)
    operators = [node.op_type for node in proto.graph.node]
    assert operators.count("BatchNormalization") == 1  # before any convolution
    assert exported.operators["Conv"] == 2
    assert "Dropout" not in operators
    assert not any(node.metadata_props or node.doc_string for node in proto.graph.node)
    assert b"/export/" not in exported.path.read_bytes()
    assert [(item.domain, item.version) for item in proto.opset_import] == [("", 20)]


def test_the_description_travels_inside_and_beside(exported, card):
    assert read_metadata(exported.path) == card
    assert exported.sidecar == exported.path.with_name("m.yaml")
    assert exported.sidecar.is_file()
    assert sorted(path.name for path in exported.path.parent.iterdir()) == ["m.onnx", "m.yaml"]


def test_the_callers_model_is_untouched(small_net, card, tmp_path):
    small_net.train()
    before = {name: tensor.clone() for name, tensor in small_net.state_dict().items()}
    to_onnx(small_net, tmp_path / "m.onnx", example=EXAMPLE, card=card)
    assert all(module.training for module in small_net.modules())
    assert all(parameter.requires_grad for parameter in small_net.parameters())
    for name, tensor in small_net.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_it_is_quiet(small_net, card, tmp_path, capfd, caplog):
    with caplog.at_level(logging.WARNING), warnings.catch_warnings():
        warnings.simplefilter("error")
        to_onnx(small_net, tmp_path / "m.onnx", example=EXAMPLE, card=card)
    assert tuple(capfd.readouterr()) == ("", "")
    assert caplog.records == []


def test_a_free_batch_takes_any_batch(small_net, card, tmp_path):
    config = OnnxConfig(dynamic_batch=True)
    result = to_onnx(small_net, tmp_path / "m.onnx", example=EXAMPLE, card=card, config=config)
    session = onnxruntime.InferenceSession(str(result.path))
    assert session.get_inputs()[0].shape == ["batch", 3, 16, 16]
    images = torch.randn(5, 3, 16, 16)
    _, logits = session.run(None, {"images": images.numpy()})
    np.testing.assert_allclose(logits, small_net.eval()(images)[1].detach(), rtol=1e-3, atol=1e-4)


def test_half_precision_becomes_float32(small_net, card, tmp_path):
    example = (EXAMPLE[0].half(),)
    result = to_onnx(small_net.half(), tmp_path / "m.onnx", example=example, card=card)
    session = onnxruntime.InferenceSession(str(result.path))
    assert {item.type for item in session.get_inputs()} == {"tensor(float)"}


class Drifting(nn.Module):
    """Says something else every time it is called."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, images):
        self.calls += 1
        return images.mean(), images + self.calls


def test_disagreement_is_refused_and_leaves_nothing(card, tmp_path):
    config = OnnxConfig(output_names=("steady", "drifting"), tolerance=1e-2)
    with pytest.raises(ExportError) as error:
        to_onnx(Drifting(), tmp_path / "m.onnx", example=EXAMPLE, card=card, config=config)
    letter = str(error.value)
    assert letter.startswith("Output 'drifting' of ")
    assert "within 0.01 (relative). Received: 0." in letter
    assert "\n" not in letter
    assert list(tmp_path.iterdir()) == []


def test_disagreement_keeps_an_older_file(exported, card):
    before = exported.path.read_bytes()
    with pytest.raises(ExportError):
        to_onnx(Drifting(), exported.path, example=EXAMPLE, card=card)
    assert exported.path.read_bytes() == before
    assert len(list(exported.path.parent.iterdir())) == 2


class OnlyRealDiffers(nn.Module):
    """Takes a branch of Python that only a second input reaches, so tracing misses it."""

    def forward(self, images):
        bright = not torch.compiler.is_exporting() and bool(images.min() > 10)
        return images * 2 if bright else images + 1


def test_given_inputs_are_compared_too(card, tmp_path):
    path = tmp_path / "m.onnx"
    to_onnx(OnlyRealDiffers(), path, example=EXAMPLE, card=card)
    with pytest.raises(ExportError, match="must agree with PyTorch"):
        to_onnx(
            OnlyRealDiffers(),
            path,
            example=EXAMPLE,
            card=card,
            compare_on=[(EXAMPLE[0] + 100,)],
        )


class Undefined(nn.Module):
    def forward(self, images):
        return (images - images.max()).sqrt()


def test_outputs_that_are_no_numbers_are_refused(card, tmp_path):
    with pytest.raises(ExportError, match=r"Received: inf"):
        to_onnx(Undefined(), tmp_path / "m.onnx", example=EXAMPLE, card=card)


class Inexpressible(nn.Module):
    def forward(self, images):
        return torch.linalg.eigvals(images.mean(1)[0]).real


def test_what_onnx_cannot_say_is_one_line(card, tmp_path):
    with pytest.raises(ExportError, match="must be expressible in ONNX") as error:
        to_onnx(Inexpressible(), tmp_path / "m.onnx", example=EXAMPLE, card=card)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


class AlwaysDropping(nn.Module):
    def forward(self, images):
        return nn.functional.dropout(images, 0.5, training=True)


def test_training_operations_are_refused(card, tmp_path):
    with pytest.raises(ExportError, match=r"ready for inference\. Received: training operation"):
        to_onnx(AlwaysDropping(), tmp_path / "m.onnx", example=EXAMPLE, card=card)


@pytest.mark.parametrize("names", [("one",), ("one", "one"), ("a", "b", "c")])
def test_output_names_must_fit(small_net, card, tmp_path, names):
    with pytest.raises(ExportError, match="2 outputs"):
        to_onnx(
            small_net,
            tmp_path / "m.onnx",
            example=EXAMPLE,
            card=card,
            config=OnnxConfig(output_names=names),
        )


def test_the_name_must_end_in_onnx(small_net, card, tmp_path):
    with pytest.raises(ExportError, match=r"must end in '\.onnx'"):
        to_onnx(small_net, tmp_path / "m.pt", example=EXAMPLE, card=card)


@pytest.mark.slow
def test_mobilenet_v2_is_only_what_it_must_be(card, tmp_path):
    from torchvision.models import mobilenet_v2

    torch.manual_seed(0)
    example = (torch.randn(1, 3, 64, 64),)
    result = to_onnx(mobilenet_v2(weights=None), tmp_path / "m.onnx", example=example, card=card)
    expected = {"Add": 10, "Clip": 35, "Conv": 52, "Gemm": 1, "ReduceMean": 1, "Reshape": 1}
    assert result.operators == expected
    assert max(result.max_error.values()) < 1e-4


RUNTIMES_BESIDE_THE_DEFAULT = ["openvino"]


@pytest.mark.parametrize("runtime", RUNTIMES_BESIDE_THE_DEFAULT)
def test_the_runtime_that_is_compared_can_be_chosen(small_net, card, tmp_path, runtime):
    config = OnnxConfig(runtime=runtime, dynamic_batch=True)
    result = to_onnx(small_net, tmp_path / "m.onnx", example=EXAMPLE, card=card, config=config)
    assert result.runtime == runtime
    assert 0 < max(result.max_error.values()) < 1e-5
    with pytest.raises(ExportError, match=f"must agree with PyTorch.* on {runtime}"):
        to_onnx(Drifting(), tmp_path / "n.onnx", example=EXAMPLE, config=config)


def test_a_runtime_that_ends_its_process_leaves_no_file(small_net, tmp_path, monkeypatch):
    def ended(*given, **settings):
        raise MeasureError("OpenVINO must survive loading 'm.onnx'.")

    monkeypatch.setattr(onnx_export, "require_survival", ended)
    with pytest.raises(ExportError, match=r"must survive loading 'm\.onnx'\. '.*' was not written"):
        to_onnx(small_net, tmp_path / "m.onnx", example=EXAMPLE)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_runtime_is_refused_before_the_conversion(small_net, tmp_path):
    config = OnnxConfig(runtime="openvin")
    with pytest.raises(ConfigError, match="Nearest: 'openvino'"):
        to_onnx(small_net, tmp_path / "m.onnx", example=EXAMPLE, config=config)
    assert list(tmp_path.iterdir()) == []


class Calling(nn.Module):
    """Calls a function with its layer and its inputs."""

    def __init__(self, call):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.call = nn.Conv2d(3, 4, 1), call

    def forward(self, *args, **kwargs):
        return self.call(self.layer, *args, **kwargs)


IMAGE, GAIN = torch.rand(1, 3, 8, 8), torch.full((1, 1, 1, 1), 2.0)
FREE = OnnxConfig(dynamic_batch=True)
FIXED = OnnxConfig()
CALLS = {
    "dictionary": (lambda f, d: f(d["image"]), ({"image": IMAGE},), FIXED, ["image"]),
    "whole-number keys": (lambda f, d: f(d[3] * d[4]), ({3: IMAGE, 4: GAIN},), FREE, None),
    "named tuple": (lambda f, p: f(p.image) * p.gain, (Pair(IMAGE, GAIN),), FIXED, Pair._fields),
    "keywords": (
        lambda f, image, gain: f(image) * gain,
        {"gain": GAIN, "image": IMAGE},
        FIXED,
        None,
    ),
    "object": (
        lambda f, s, n: f(s.image) * n,
        (types.SimpleNamespace(image=IMAGE, gain=GAIN), 3),
        FIXED,
        ["image", "gain"],
    ),
    "single number": (lambda f, i, g: f(i * g), (IMAGE, torch.tensor(2.0)), FREE, None),
    "table": (lambda f, i, t: f(i) * t.sum(), (IMAGE, torch.rand(5)), FREE, None),
    "unused": (lambda f, i, _: f(i), (IMAGE, GAIN), FIXED, None),
    "nothing returned beside": (lambda f, i: {"a": (f(i), None, 3)}, (IMAGE,), FIXED, ["images"]),
    "flags": (lambda f, i: [f(i), i.mean(1) > 0.5], (IMAGE,), FIXED, None),
    "infinities": (
        lambda f, i: f(i).masked_fill(i.mean(1, keepdim=True) < 0.5, -torch.inf),
        (IMAGE,),
        FIXED,
        None,
    ),
    "largest numbers": (
        lambda f, i: f(i).masked_fill(i.mean(1, keepdim=True) < 0.5, torch.finfo(i.dtype).min),
        (IMAGE,),
        FIXED,
        None,
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_what_a_model_takes_and_returns_becomes_tensors_of_the_file(name, tmp_path):
    call, example, config, names = CALLS[name]
    result = to_onnx(Calling(call), tmp_path / "m.onnx", example=example, config=config)
    assert max(result.max_error.values()) < 1e-5
    taken = [item.name for item in onnx.load(result.path).graph.input]
    assert names is None or taken == list(names)


@pytest.mark.parametrize(
    "between", [nn.ReLU(), nn.GELU(), nn.MaxPool2d(2), nn.Hardswish(), nn.Upsample(scale_factor=2)]
)
def test_a_normalisation_after_something_else_than_a_layer(between, tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), between, nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1))
    result = to_onnx(model, tmp_path / "m.onnx", example=(torch.rand(1, 3, 12, 12),))
    assert max(result.max_error.values()) < 1e-5


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
def test_computed_weights_become_constants(tmp_path):
    layers = [weight_norm(nn.Conv2d(3, 4, 3)), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)]
    prune.l1_unstructured(layers[2], "weight", amount=0.5)
    result = to_onnx(nn.Sequential(*layers), tmp_path / "m.onnx", example=(IMAGE,))
    assert max(result.max_error.values()) < 1e-5
    assert result.operators == {"Conv": 2, "Relu": 1}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dpn68", "convmixer_768_32"])
def test_networks_with_normalisations_after_activations_and_pools(name, tmp_path):
    model, images = timm.create_model(name), torch.rand(1, 3, 32, 32)
    result = to_onnx(model, tmp_path / "m.onnx", example=(images,))
    assert max(result.max_error.values()) < 1e-4


REFUSED = {
    "other channels": (lambda f, i: f(i), (torch.rand(1, 4, 8, 8),), "must run on the example"),
    "missing": (lambda f, i, j: f(i), (IMAGE,), "must run on the example"),
    "generator": (lambda f, i: (f(x) for x in i), (IMAGE,), "a generator"),
    "choice by values": (lambda f, i: f(i) if i.sum() > 0 else i, (IMAGE,), "must be expressible"),
    "complex": (lambda f, i: f(i.real), (IMAGE + 0j,), "must run on the inputs"),
    "nothing": (lambda f, i: 3, (IMAGE,), "must return tensors"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_become_a_file_is_refused_in_one_line(name, tmp_path, capfd):
    call, example, text = REFUSED[name]
    with pytest.raises(FlyweightError, match=text) as caught:
        to_onnx(Calling(call), tmp_path / "m.onnx", example=example)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert "def forward" not in capfd.readouterr().err


def test_a_model_without_weights_is_refused(tmp_path):
    with pytest.raises(ExportError, match="must have weights to be exported"):
        to_onnx(nn.Conv2d(3, 4, 1).to("meta"), tmp_path / "m.onnx", example=(IMAGE,))


def test_random_inputs_that_the_model_does_not_take_are_left_out(tmp_path):
    class Checked(Calling):
        def forward(self, images):
            if not torch.compiler.is_compiling() and images.min() < 0:
                raise ValueError("images are not negative")
            return self.layer(images)

    result = to_onnx(Checked(None), tmp_path / "m.onnx", example=(IMAGE,))
    assert max(result.max_error.values()) < 1e-5
    with pytest.raises(ExportError, match="must run on the inputs"):
        to_onnx(Checked(None), tmp_path / "n.onnx", example=(IMAGE,), compare_on=[(-IMAGE,)])


def test_the_operator_set_is_that_of_the_file(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Upsample(scale_factor=2))
    example, path = (torch.randn(1, 3, 12, 12),), tmp_path / "a.onnx"
    with pytest.raises(ExportError, match="where 11 was requested"):
        to_onnx(model, path, example=example, config=OnnxConfig(opset=11))
    assert not path.exists()
    found = to_onnx(model, path, example=example, config=OnnxConfig(opset=19))
    (item,) = onnx.load(path).opset_import
    assert found.opset == item.version == 19
