"""Same-input comparison of a quantized file with PyTorch, from one rounding to the next.

A difference of one level in the first layer becomes many in fifty layers, whatever the cause, so
the results of a whole network do not show whether its layers are right. Here the file is cut at
every tensor that it rounds: each piece reads the integers that PyTorch computed, and the integers
that it makes are compared with PyTorch's.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import nn

from flyweight.exporting.rounded_nodes import paired
from flyweight.graph.example_inputs import Example
from flyweight.quantization.frozen import frozen
from flyweight.quantization.network import forward_of
from flyweight.quantization.rounded_tensors import Rounded
from flyweight.quantization.rounded_tensors import rounded_tensors as rounded_in

Integers = NDArray[Any]
_GIVEN = "_given"


@dataclass(frozen=True)
class Difference:
    """Integers of one piece that differ from PyTorch's.

    Attributes:
        name: Of the tensor at its end, in the file.
        quantizer: Name of the quantizer there.
        values: How many integers it makes.
        flips: How many of them differ.
        levels: The largest difference.
    """

    name: str
    quantizer: str
    values: int
    flips: int
    levels: int


def rounded_tensors(model: nn.Module, example: Example) -> list[Rounded]:
    """Return all tensors that a quantized network rounds in a run, in order."""
    fixed: Any = frozen(model).eval()
    return rounded_in(forward_of(fixed), lambda: fixed(*example.args, **example.kwargs))


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
    names = paired(graph, tensors)
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


def with_operation(path: Path, names: Iterable[str], kind: str) -> frozenset[str]:
    """Return the pieces of a file, by the tensors at their ends, that have a kind of operation.

    Args:
        path: The file, from `cut`.
        names: Of the tensors.
        kind: ONNX's name of the operation.
    """
    maker = {name: node for node in onnx.load(path).graph.node for name in node.output}

    def has_it(name: str) -> bool:
        seen, open_ones = set[str](), [name]
        while open_ones:
            node = maker.get(open_ones.pop())
            if node is None or node.output[0] in seen:
                continue
            if node.op_type == kind:
                return True
            seen.add(node.output[0])
            open_ones += node.input
        return False

    return frozenset(name for name in names if has_it(name))


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
        yield Difference(name, tensors[place].quantizer, levels.size, flips, most)
