import math

import pytest

from flyweight.errors import FileError
from flyweight.report.quantization_results import (
    QuantizationResult,
    QuantizationStep,
    QuantizedLayer,
    finite,
    read_quantization,
)


def result(**changes):
    values = {
        "metric": "top1",
        "measured_on": "372 images of clothing10/val",
        "runtime": "onnxruntime",
        "metrics": {"top1": {"float": 0.85, "int8": 0.84}},
        "steps": (QuantizationStep(name="calibration", before=0.85, after=0.84),),
        "layers": (
            QuantizedLayer(name="stem.conv2d", precision="int8", loss=0.001),
            QuantizedLayer(name="up.conv_transpose2d", precision="float32", reason="no kernel"),
            QuantizedLayer(name="head.linear", precision="int8", loss=0.02),
        ),
        "file_bytes": {"float": 8 * 2**20, "int8": 2 * 2**20},
    }
    return QuantizationResult(**{**values, **changes})


def test_a_record_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "quantized.json"
    assert read_quantization(path) is None
    path.write_text(result().to_json())
    assert read_quantization(path) == result()
    assert result().integer_count == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "must be as flyweight quantize wrote it"),
        ("{}", "another format"),
        ('{"format": 1}', "Field required"),
        ("[]", "Quantize again"),
        (result(metrics={}).to_json().replace('"float": 8', '"other": 8'), "must have the keys"),
    ],
)
def test_other_files_are_refused(tmp_path, text, message):
    path = tmp_path / "quantized.json"
    path.write_text(text)
    with pytest.raises(FileError, match=message):
        read_quantization(path)


def test_values_that_are_no_numbers_are_left_out():
    assert finite(0.5) == 0.5
    assert finite(None) is finite(math.nan) is finite(math.inf) is None
