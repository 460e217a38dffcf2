import logging
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from flyweight.errors import ConfigError, ExportError
from flyweight.exporting.model_card import read_metadata
from flyweight.exporting.onnx import OPSET, OnnxConfig, to_onnx

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


def test_an_unknown_runtime_is_refused_before_the_conversion(small_net, tmp_path):
    config = OnnxConfig(runtime="openvin")
    with pytest.raises(ConfigError, match="Nearest: 'openvino'"):
        to_onnx(small_net, tmp_path / "m.onnx", example=EXAMPLE, config=config)
    assert list(tmp_path.iterdir()) == []
