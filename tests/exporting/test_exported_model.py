import pytest
import torch

from flyweight.config.preprocessing import Preprocessing
from flyweight.errors import ConfigError, ExportError, FileError
from flyweight.exporting import exported_model
from flyweight.exporting.exported_model import ExportedModel
from flyweight.exporting.model_card import ModelCard, precision_facts, to_properties
from flyweight.exporting.onnx import OnnxConfig, to_onnx
from flyweight.runtimes.runtime_table import RUNTIMES


class FakeRuntime:
    """A runtime with some precisions, whose files have the description of a card."""

    def __init__(self, known, facts):
        self.known, self.opened = known, []
        square = Preprocessing(height=8, width=8)
        self.properties = to_properties(ModelCard(name="net", preprocessing=square, extra=facts))

    def precisions(self):
        return self.known

    def open(self, path, settings):
        self.opened.append(settings.precision)
        return self


@pytest.mark.parametrize(
    ("known", "facts", "given", "opened"),
    [
        (("float32", "bfloat16"), precision_facts("bfloat16"), "", "bfloat16"),
        (("float32",), precision_facts("bfloat16"), "", "float32"),
        (("float32", "bfloat16"), precision_facts("bfloat16"), "float32", "float32"),
        (("float32", "bfloat16"), precision_facts("float32"), "", "float32"),
    ],
)
def test_the_description_names_the_precision(monkeypatch, tmp_path, known, facts, given, opened):
    runtime = FakeRuntime(known, facts)
    monkeypatch.setattr(exported_model, "runtime_by_name", lambda name: runtime)
    (tmp_path / "net.onnx").touch()
    ExportedModel(tmp_path / "net.onnx", precision=given)
    assert runtime.opened[-1] == opened


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_exported_file_runs_from_its_own_description(small_net, card, tmp_path, runtime):
    images = torch.randn(1, 3, 16, 16)
    config = OnnxConfig(output_names=("features", "logits"))
    path = tmp_path / "m.onnx"
    to_onnx(small_net, path, example=(images,), card=card, config=config)
    model = ExportedModel(path, threads=1, runtime=runtime)
    assert model.card == card
    assert model.output_names == ("features", "logits")
    found = model.run(images)
    expected = small_net.eval()(images)
    torch.testing.assert_close(found["logits"], expected[1].detach(), rtol=1e-4, atol=1e-4)
    with pytest.raises(ExportError, match=r"shape \[1, 3, 16, 16\]\. Received: \[2, 3, 16, 16\]"):
        model.run(images.repeat(2, 1, 1, 1))
    with pytest.raises(ExportError, match=r"Received: \[3, 16, 16\]"):
        model.run(images[0])


def test_files_that_cannot_run_are_one_line(tmp_path):
    with pytest.raises(FileError, match="nothing of that name"):
        ExportedModel(tmp_path / "no.onnx")
    text = tmp_path / "text.onnx"
    text.write_text("hello")
    for name, entry in RUNTIMES.items():
        with pytest.raises(ExportError, match=f"that {entry.title} can load") as error:
            ExportedModel(text, runtime=name)
        assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match=r"Received: 'onnx-runtime'\. Nearest: 'onnxruntime'"):
        ExportedModel(text, runtime="onnx-runtime")
