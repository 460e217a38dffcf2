"""Same-input comparison of a quantized file with PyTorch, from one rounding to the next.

A difference of one level in the first layer becomes many in fifty layers, whatever the cause, so
the results of a whole network do not show whether its layers are right. Here the file is cut at
every tensor that it rounds: each piece reads the integers that PyTorch computed, and the integers
that it makes are compared with PyTorch's.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from flyweight.graph.example_inputs import Example
from flyweight.quantization.frozen import frozen
from flyweight.quantization.network import forward_of

Integers = NDArray[Any]
_GIVEN = "_given"


@dataclass(frozen=True)
class Rounded:
    """A tensor that PyTorch rounded.

    Attributes:
        quantizer: Name of its quantizer.
        scale: Of the grid.
        zero_point: Of the grid.
        integers: What it became, unsigned.
    """

    quantizer: str
    scale: float
    zero_point: int
    integers: Integers


@dataclass(frozen=True)
class Difference:
    """Integers of one piece that differ from PyTorch's.

    Attributes:
        quantizer: Name of the quantizer at its end.
        values: How many integers it makes.
        flips: How many of them differ.
        levels: The largest difference.
    """

    quantizer: str
    values: int
    flips: int
    levels: int


def rounded_tensors(model: nn.Module, example: Example) -> list[Rounded]:
    """Return all tensors that a quantized network rounds in a run, in order."""
    fixed = frozen(model).eval()
    forward: Any = forward_of(fixed)
    found: list[Rounded] = []
    original: Callable[[str, Tensor], Tensor] = forward.result

    def result(quantizer: str, values: Tensor) -> Tensor:
        made = original(quantizer, values)
        grid = forward._quantizers[quantizer].grid()
        scale = np.float32(grid.scale)
        integers = np.round(made.numpy() / scale) + grid.zero_point
        found.append(Rounded(quantizer, float(scale), grid.zero_point, integers.astype(np.uint8)))
        return made

    forward.result = result
    with torch.no_grad():
        fixed(*example.args, **example.kwargs)
    return found


def cut(path: Path, tensors: Sequence[Rounded], target: Path) -> dict[str, int]:
    """Write the pieces of a file as one file without edges between them.

    Args:
        path: A quantized file.
        tensors: What PyTorch rounds in one run of the same network.
        target: The file to write. Every rounded tensor is an output, and an input under its name
            with `_given`.

    Returns:
        Name of each tensor in the file to its place in `tensors`. Where the exporter dropped or
        doubled a rounding, so that file and network have another number of tensors of one grid,
        these are left whole.
    """
    model = onnx.load(path)
    graph = model.graph
    names = _paired(graph, tensors)
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name in names:
                node.input[place] = name + _GIVEN
    returned = {item.name for item in graph.output}
    for name, place in names.items():
        shape = tensors[place].integers.shape
        kind = TensorProto.UINT8
        graph.input.append(helper.make_tensor_value_info(name + _GIVEN, kind, shape))
        if name not in returned:
            graph.output.append(helper.make_tensor_value_info(name, kind, shape))
    onnx.save(model, target)
    return names


def _paired(graph: Any, tensors: Sequence[Rounded]) -> dict[str, int]:
    stored = {item.name: item for item in graph.initializer}
    in_file, in_torch = defaultdict(list), defaultdict(list)
    for node in graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] not in stored:
            scale, zero = (numpy_helper.to_array(stored[name]) for name in node.input[1:3])
            in_file[float(scale), int(zero)].append(node.output[0])
    for place, one in enumerate(tensors):
        in_torch[one.scale, one.zero_point].append(place)
    return {
        name: place
        for grid, names in in_file.items()
        if len(names) == len(in_torch[grid])
        for name, place in zip(names, in_torch[grid], strict=True)
    }


def differences(
    run: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    given: Mapping[str, Any],
    tensors: Sequence[Rounded],
    names: Mapping[str, int],
) -> Iterator[Difference]:
    """Run the pieces in a runtime and yield how each differs.

    Args:
        run: Runs the file of `cut`.
        given: The inputs of the network.
        tensors: From `rounded_tensors`.
        names: From `cut`.
    """
    inputs = {name + _GIVEN: tensors[place].integers for name, place in names.items()}
    found = run({**given, **inputs})
    for name, place in names.items():
        if name not in found:
            continue  # OpenVINO merges outputs that are equal.
        wanted = tensors[place].integers.astype(np.int16)
        levels = np.abs(np.asarray(found[name]).astype(np.int16) - wanted)
        flips, most = int((levels > 0).sum()), int(levels.max(initial=0))
        yield Difference(tensors[place].quantizer, levels.size, flips, most)
