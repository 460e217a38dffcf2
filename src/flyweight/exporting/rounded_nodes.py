"""The nodes of an ONNX graph that round tensors, compared one by one with what PyTorch computed."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.shape_inference import infer_shapes
from onnx.utils import Extractor

from flyweight.quantization.rounded_tensors import Rounded
from flyweight.runtimes.protocol import OpenModel

_MOVING = frozenset({"pad", "flatten", "reshape", "view", "permute", "transpose"})
"""Torch functions that only move values: exporters drop what rounds their results again."""


def paired(graph: Any, tensors: Sequence[Rounded]) -> dict[str, int]:
    """Return the name of each rounded tensor of a graph with its place in `tensors`.

    Where the exporter dropped or doubled a rounding, so that file and network have another number
    of tensors of one grid, these are left out, unless equal ones were merged, or those dropped that
    only move values.

    Args:
        graph: Of an `onnx.ModelProto`.
        tensors: What PyTorch rounds in one run of the same network.
    """
    stored = {item.name: item for item in graph.initializer}
    in_file, in_torch = defaultdict(list), defaultdict(list)
    for node in graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] not in stored:
            scale, zero = (numpy_helper.to_array(stored[name]) for name in node.input[1:3])
            in_file[float(scale), int(zero)].append(node.output[0])
    for place, one in enumerate(tensors):
        in_torch[one.scale, one.zero_point].append(place)
    found: dict[str, int] = {}
    for grid, names in in_file.items():
        for places in _kept(in_torch[grid], tensors):
            if len(names) == len(places):
                found |= dict(zip(names, places, strict=True))
                break
    return found


def _kept(places: Sequence[int], tensors: Sequence[Rounded]) -> Iterator[list[int]]:
    """Yield tensors of one grid as exporters keep them: all, distinct ones, those not moved."""
    yield list(places)
    distinct: list[int] = []
    for place in places:
        integers = tensors[place].integers
        if not any(np.array_equal(integers, tensors[other].integers) for other in distinct):
            distinct.append(place)
    yield distinct
    yield [place for place in places if tensors[place].function not in _MOVING]


def first_difference(
    proto: Any,
    tensors: Sequence[Rounded],
    given: Mapping[str, Any],
    open_file: Callable[[Path], OpenModel],
) -> str | None:
    """Return the quantizer of the first tensor that a runtime rounds to other integers; or None.

    Every tensor is the only output of a file that ends there, because a tensor that is an output
    is not computed together with what follows it.

    Args:
        proto: The `onnx.ModelProto`.
        tensors: What PyTorch rounds for `given`.
        given: Name of each input of the file to its values.
        open_file: Loads a file in the runtime.
    """
    names = paired(proto.graph, tensors)
    with TemporaryDirectory() as folder:
        for name, path in _beginnings(proto, list(names), Path(folder)):
            opened = open_file(path)
            taken = {item.name for item in opened.inputs}
            found = opened.run({key: one for key, one in given.items() if key in taken})
            wanted = tensors[names[name]]
            if not np.array_equal(next(iter(found.values())), wanted.integers):
                return wanted.quantizer
    return None


def _beginnings(proto: Any, names: Sequence[str], folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield files that end at one tensor, in the order of the graph."""
    order = {name: at for at, node in enumerate(proto.graph.node) for name in node.output}
    inputs = [item.name for item in proto.graph.input]
    # A new output needs its type, which quantized files do not hold.
    extractor, path = Extractor(infer_shapes(proto)), folder / "beginning.onnx"
    for name in sorted(names, key=order.__getitem__):
        onnx.save(extractor.extract_model(inputs, [name]), path)
        yield name, path
