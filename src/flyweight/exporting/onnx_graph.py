"""ONNX graph of a network: conversion by torch's exporter, and the checks of the result.

`flyweight.exporting.onnx` loads this module when a network is exported, because onnx and onnxscript
take most of a second to import.
"""

import sys
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, redirect_stderr
from io import TextIOBase
from pathlib import Path
from threading import get_ident
from typing import Any, NoReturn

import onnx
import torch
from onnx import TensorProto
from onnxscript import opset20

from flyweight.errors import ExportError
from flyweight.exporting.flat_inputs import Inputs, batched, with_batch
from flyweight.exporting.hygiene import leftovers, strip_traces
from flyweight.exporting.inference_network import InferenceNetwork
from flyweight.exporting.layer_names import name_layers
from flyweight.exporting.model_card import ModelCard, to_properties

_SINGLE_FILE_BYTES = 2**31 - 2**20  # protobuf's limit, less the size of the graph itself
_MAX_SURVIVORS = 2**31 - 1


def opset_of(proto: Any) -> int:
    """Return the version of ONNX's own operator set in a file."""
    return next(int(one.version) for one in proto.opset_import if one.domain in ("", "ai.onnx"))


def convert(
    network: InferenceNetwork,
    inputs: Inputs,
    names: tuple[tuple[str, ...], tuple[str, ...]],
    *,
    opset: int,
    dynamic_batch: bool,
    target: Path,
) -> Any:
    """Return the optimised `onnx.ModelProto` of a network.

    Args:
        network: The network.
        inputs: Inputs of the shapes to export.
        names: Names of the inputs, and of the outputs.
        opset: Version of the operator set.
        dynamic_batch: Leave the size of the batch free.
        target: The file it will become, for error messages.

    Raises:
        ExportError: The network cannot be written in ONNX, or its weights exceed 2 GB.
    """
    shapes = None
    if dynamic_batch:
        shapes = (tuple({0: "batch"} if flag else {} for flag in batched(inputs)),)
        # The exporter takes a size of 1 for a constant.
        inputs = with_batch(inputs, lambda one: torch.cat([one, one]) if len(one) == 1 else one)
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                network,
                inputs,
                dynamo=True,
                verbose=False,
                input_names=names[0],
                output_names=names[1],
                opset_version=opset,
                dynamic_shapes=shapes,
                custom_translation_table=_translations(),
                optimize=True,
            )
    except Exception as error:  # noqa: BLE001 - the exporter also raises what the model's code does
        _refuse_model(error, target)
    if program is None:
        raise ExportError(
            f"torch's exporter must return a graph for '{target}'. Received: nothing. "
            "Report this with the network and the version of torch."
        )
    weights = (item.const_value for item in program.model.graph.initializers.values())
    size = sum(weight.nbytes for weight in weights if weight is not None)
    if size > _SINGLE_FILE_BYTES:
        raise ExportError(
            f"One ONNX file must hold less than 2 GB. Received: {size / 1e9:.1f} GB of weights for "
            f"'{target}'. Prune the model first."
        )
    return program.model_proto


def finish(proto: Any, card: ModelCard, target: Path) -> None:
    """Name the layers of a graph, remove traces of this machine, check it, and add the card.

    Raises:
        ExportError: The graph contains operations that inference does not need.
    """
    name_layers(proto)
    strip_traces(proto)
    found = leftovers(proto)
    if found:
        raise ExportError(
            f"The graph of '{target}' must be ready for inference. Received: {found[0]}"
            f"{f' and {len(found) - 1} more' if len(found) > 1 else ''}. "
            "Call eval() on parts that switch themselves to training mode."
        )
    proto.producer_name = "flyweight"
    proto.producer_version = card.flyweight_version
    proto.graph.name = card.name
    del proto.metadata_props[:]
    for key, value in to_properties(card).items():
        proto.metadata_props.add(key=key, value=value)


def drop_outputs(proto: Any, names: Collection[str]) -> None:
    """Remove outputs of a graph, in place, and the nodes and constants that nothing else needs."""
    kept = [item for item in proto.graph.output if item.name not in names]
    del proto.graph.output[:]
    proto.graph.output.extend(kept)
    needed = {item.name for item in kept}
    for place in reversed(range(len(proto.graph.node))):
        node = proto.graph.node[place]
        if needed.intersection(node.output):
            needed.update(node.input)
        else:
            del proto.graph.node[place]
    for place in reversed(range(len(proto.graph.initializer))):
        if proto.graph.initializer[place].name not in needed:
            del proto.graph.initializer[place]


def check_file(path: Path) -> None:
    """Run ONNX's own checker, shapes included.

    Raises:
        Exception: Any error of the checker for an invalid file.
    """
    onnx.checker.check_model(str(path), full_check=True)


def tensor_shapes(values: Any) -> dict[str, list[int | str]]:
    """Return the shapes of a graph's inputs or outputs by name; a string is a free size."""
    return {
        item.name: [size.dim_param or size.dim_value for size in item.type.tensor_type.shape.dim]
        for item in values
    }


def operator_counts(proto: Any) -> dict[str, int]:
    """Return how many nodes of each operator the graph has, in alphabetical order."""
    counts: dict[str, int] = {}
    for node in proto.graph.node:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return dict(sorted(counts.items()))


def _translations() -> dict[Any, Callable[..., Any]]:
    """Return how the exporter writes `zoo.detectors.suppression.survivors` in ONNX."""
    op: Any = opset20  # its stubs know tensors only inside scripts

    def translate(boxes: Any, scores: Any, iou_threshold: float, score_threshold: float) -> Any:
        picked = op.NonMaxSuppression(
            boxes,
            op.Unsqueeze(scores, op.Constant(value_ints=[1])),
            op.Constant(value_ints=[_MAX_SURVIVORS]),
            op.Constant(value_floats=[iou_threshold]),
            op.Constant(value_floats=[score_threshold]),
        )
        # Rows of (set, class, box), with a single class.
        places = op.Gather(picked, op.Constant(value_ints=[0, 2]), axis=1)
        count = op.Shape(op.Gather(places, op.Constant(value_int=0), axis=1))
        ones = op.Expand(op.Constant(value_float=1.0), count)
        mask = op.ScatterND(op.ConstantOfShape(op.Shape(scores)), places, ones)
        return op.Cast(mask, to=TensorProto.BOOL)

    return {torch.ops.flyweight.survivors.default: translate}


def _refuse_model(error: Exception, target: Path) -> NoReturn:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    reason = next(iter(str(cause).strip().splitlines()), type(cause).__name__)
    raise ExportError(
        f"The model must be expressible in ONNX to become '{target}'. Received: "
        f"{type(cause).__name__}: {reason}. Rewrite that part with tensor operations."
    ) from error


class _OtherThreads(TextIOBase):
    """Standard error without what the current thread writes."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._thread = stream, get_ident()

    def write(self, text: str) -> int:
        """Write what another thread writes."""
        if get_ident() != self._thread:
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        self._stream.flush()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the warnings of torch's exporter about its own internals.

    Where it fails, it also prints the program that it has so far, thousands of lines.
    """
    with warnings.catch_warnings(), redirect_stderr(_OtherThreads(sys.stderr)):
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", message=r".*# The axis name: .*will not be used")
        yield
