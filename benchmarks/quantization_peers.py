"""Quantize an ONNX file with another tool.

    python benchmarks/quantization_peers.py quantize_static FLOAT.onnx IMAGES.npy OUT.onnx
    python benchmarks/quantization_peers.py nncf FLOAT.onnx IMAGES.npy OUT.onnx

`quantization.py` starts it, with the Python of an environment in which the tool is installed. The
file of images holds what the network sees in use, `(n, 3, height, width)` float32. Every tool has
its documented defaults for convolutional networks on processors of x86: static, per-channel
weights, quantize and dequantize nodes. torchao takes `FLOAT.pt2`, the exported program of the same
network, which lies beside the file.
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


def aimet(source: Path, images: np.ndarray, target: Path) -> None:
    """Use the simulation of AIMET, and write it with integer weights and biases."""
    import aimet_onnx as tool

    model = onnx.load(source)
    name = model.graph.input[0].name
    rows = [{name: row[None]} for row in images]
    simulated = tool.QuantizationSimModel(model, dummy_input=rows[0])
    simulated.compute_encodings(rows)
    made = simulated.to_onnx_qdq(export_int32_bias=True, prequantize_constants=True)
    onnx.save(made, target)


def torchao(source: Path, images: np.ndarray, target: Path) -> None:
    """Use torchao's quantization of exported programs for processors of x86, and export that."""
    import torch
    from torchao.quantization.pt2e import move_exported_model_to_eval
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    batches = torch.from_numpy(images).split(1)
    program = torch.export.load(source.with_suffix(".pt2"))
    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(program.module(), quantizer)
    with torch.no_grad():
        for batch in batches:
            prepared(batch)
    converted = convert_pt2e(prepared)
    move_exported_model_to_eval(converted)
    named = {"input_names": [onnx.load(source).graph.input[0].name]}
    torch.onnx.export(converted, (batches[0],), str(target), dynamo=True, **named)


TOOLS: Mapping[str, Callable[[Path, np.ndarray, Path], None]] = {
    "quantize_static": quantize_static,
    "nncf": nncf,
    "aimet": aimet,
    "torchao": torchao,
}


def main(arguments: list[str]) -> int:
    """Quantize one file; return the exit status."""
    tool, source, images, target = arguments
    TOOLS[tool](Path(source), np.load(images, allow_pickle=False), Path(target))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
