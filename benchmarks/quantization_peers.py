"""Quantize an ONNX file with another tool.

    python benchmarks/quantization_peers.py quantize_static FLOAT.onnx IMAGES.npy OUT.onnx
    python benchmarks/quantization_peers.py nncf FLOAT.onnx IMAGES.npy OUT.onnx

`quantization.py` starts it, with the Python of an environment in which the tool is installed. The
file of images holds what the network sees in use, `(n, 3, height, width)` float32. Every tool has
its documented defaults for convolutional networks on processors of x86: static, per-channel
weights, quantize and dequantize nodes.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx


def quantize_static(source: Path, images: np.ndarray, target: Path) -> None:
    """Use `onnxruntime.quantization`, with the preprocessing that its documents ask for."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType
    from onnxruntime.quantization import quantize_static as quantize
    from onnxruntime.quantization.shape_inference import quant_pre_process

    name = onnx.load(source, load_external_data=False).graph.input[0].name

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rows = iter(images)

        def get_next(self) -> dict[str, Any] | None:
            row = next(self.rows, None)
            return None if row is None else {name: row[None]}

    prepared = target.with_suffix(".prepared.onnx")
    quant_pre_process(str(source), str(prepared))
    quantize(
        str(prepared),
        str(target),
        Reader(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )
    prepared.unlink()


def nncf(source: Path, images: np.ndarray, target: Path) -> None:
    """Use NNCF's post-training quantization of ONNX files."""
    import nncf as tool

    model = onnx.load(source)
    name = model.graph.input[0].name
    data = tool.Dataset(list(images), lambda row: {name: row[None]})
    preset = tool.QuantizationPreset.MIXED
    onnx.save(tool.quantize(model, data, preset=preset, subset_size=len(images)), target)


TOOLS: Mapping[str, Callable[[Path, np.ndarray, Path], None]] = {
    "quantize_static": quantize_static,
    "nncf": nncf,
}


def main(arguments: list[str]) -> int:
    """Quantize one file; return the exit status."""
    tool, source, images, target = arguments
    TOOLS[tool](Path(source), np.load(images, allow_pickle=False), Path(target))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
