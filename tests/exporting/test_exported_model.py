import pytest
import torch

from flyweight.errors import ExportError, FileError
from flyweight.exporting.onnx import OnnxConfig, to_onnx
from flyweight.runtimes.onnx_model import OnnxModel


def test_an_exported_file_runs_from_its_own_description(small_net, card, tmp_path):
    images = torch.randn(1, 3, 16, 16)
    config = OnnxConfig(output_names=("features", "logits"))
    path = tmp_path / "m.onnx"
    to_onnx(small_net, path, example=(images,), card=card, config=config)
    model = OnnxModel(path, threads=1)
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
        OnnxModel(tmp_path / "no.onnx")
    text = tmp_path / "text.onnx"
    text.write_text("hello")
    with pytest.raises(ExportError, match="that ONNX Runtime can load") as error:
        OnnxModel(text)
    assert "\n" not in str(error.value)
