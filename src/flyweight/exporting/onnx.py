"""ONNX export: the network is converted, checked, compared with PyTorch, and only then written."""

import os
import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flyweight.errors import ConfigError, ExportError, MeasureError, counted
from flyweight.exporting.exactness import require_exact_file
from flyweight.exporting.file_comparison import Comparison, own_names
from flyweight.exporting.flat_inputs import FlatInputs, Given, Inputs, batched
from flyweight.exporting.inference_network import InferenceNetwork
from flyweight.exporting.model_card import ModelCard, sidecar_path, to_sidecar
from flyweight.files import replacing
from flyweight.graph.entry import plain_module
from flyweight.graph.stored import held_tensors
from flyweight.measuring.survival import require_survival
from flyweight.on_demand import load
from flyweight.processors import clipping_note, processor_flags
from flyweight.quantization.network import plan_of
from flyweight.quantization.quantization_plan import QuantizationPlan
from flyweight.runtimes.protocol import OpenModel, OpenSettings
from flyweight.runtimes.runtime_table import DEFAULT_RUNTIME, require_installed, runtime_by_name

# The version that torch's exporter writes natively; ONNX Runtime since 1.17 and OpenVINO run it.
OPSET = 20
_ONNX_GRAPH = "flyweight.exporting.onnx_graph"  # imports onnx and onnxscript
_INTEGER_GRAPH = "flyweight.exporting.integer_graph"  # imports onnx
_FLOAT_LAYERS = "flyweight.exporting.float_layers"  # imports onnx

_CLIPPED_BITS = 8
"""Bits of weights from which on sums of two products exceed 16 bits."""


@dataclass(frozen=True)
class OnnxConfig:
    """How to export.

    Attributes:
        input_names: Names of the inputs, in the order of the example; empty for "images" (or
            "input_0", ... of several), and for the names of keyword inputs, of keys and of fields.
        output_names: Names of the outputs; empty for those of what is appended, for the fields of
            a named tuple, or else for "output_0", ... or, if the card declares them as decoded
            or detections, for "boxes", "scores", "labels", "counts" of a detector, "scores" of a
            classifier, "labels" of a segmenter.
        dynamic_batch: Leave the first size free, of inputs that are as long as the first one.
        opset: Version of the operator set.
        tolerance: Greatest relative error against PyTorch, see `exporting.parity`; of a quantized
            network at least `INTEGER_TOLERANCE`.
        seed: Of the random inputs that are compared.
        runtime: Name of the runtime that is compared with PyTorch, see
            `flyweight.runtimes.runtime_table`. A network that was quantized with `exact` is also
            compared on the runtime of its plan.
    """

    input_names: tuple[str, ...] = ()
    output_names: tuple[str, ...] = ()
    dynamic_batch: bool = False
    opset: int = OPSET
    tolerance: float = 1e-3
    seed: int = 0
    runtime: str = DEFAULT_RUNTIME


DEFAULT = OnnxConfig()


@dataclass(frozen=True)
class ExportResult:
    """An export that was written.

    Attributes:
        path: The ONNX file.
        sidecar: The readable description beside it.
        max_error: Output name to the largest relative error against PyTorch.
        size_bytes: Size of the ONNX file.
        seconds: Time the export took, checks included.
        opset: Version of the operator set, as the file states it.
        operators: Operator name to the number of nodes in the graph.
        runtime: Name of the runtime that was compared with PyTorch.
        notes: What the user should know, one line each; on 8-bit weights and this processor.
    """

    path: Path
    sidecar: Path
    max_error: dict[str, float]
    size_bytes: int
    seconds: float
    opset: int
    operators: dict[str, int]
    runtime: str = DEFAULT_RUNTIME
    notes: tuple[str, ...] = ()


def to_onnx(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    example: Given,
    card: ModelCard | None = None,
    postprocess: nn.Module | None = None,
    compare_on: Sequence[Given] = (),
    config: OnnxConfig = DEFAULT,
) -> ExportResult:
    """Write a copy of `model`, in evaluation mode and float32, as one ONNX file with a card.

    The file appears under its name only after ONNX's checker accepts it, the runtime loads it and
    its outputs agree with PyTorch's on `example`, on random inputs and on `compare_on`.

    Args:
        model: The network.
        path: Where to write; the description is written to the same name with `.yaml`.
        example: Inputs of the shapes to export: a tuple of positional inputs, a mapping of keyword
            inputs, or an `Example` with both. Tensors may be nested in containers and objects; each
            becomes an input of the file. Numbers and texts become constants.
        card: The description of the file; by default only the name of the model's class.
        postprocess: A decoder or `nms.Detections`, called with the outputs of `model`.
        compare_on: Further inputs of the same form to compare on, such as real images.
        config: Names, operator set, tolerance, runtime.

    Raises:
        ConfigError: There is no such runtime, or it is not installed.
        ExportError: The model does not run on the example or cannot be written in ONNX, the graph
            contains operations of training, or an output differs from PyTorch's by more than the
            tolerance; of a network that was quantized with `exact`, in any bit.
        GraphError: The model is scripted or quantized, or returns what cannot be followed.
        FileError: `path` cannot be written.
    """
    model = plain_module(model)
    started = time.perf_counter()
    target, plan = _checked_target(path), plan_of(model)
    for runtime in _runtimes(config.runtime, plan):
        require_installed(runtime)
    graph_tools = load(_ONNX_GRAPH)
    card, given = card or ModelCard(name=type(model).__name__), FlatInputs.of(example)
    network, inputs = _network(model, postprocess, given), given.tensors
    names = network.output_names(inputs, card, config.output_names)
    own = own_names(network, inputs)
    compared = Comparison(
        network, card, _input_names(given, config), names, own, config.tolerance, config.runtime
    )
    settings = {"opset": config.opset, "dynamic_batch": config.dynamic_batch}
    both = (compared.inputs, (*own, *names))
    proto = graph_tools.convert(network, inputs, both, target=target, **settings)
    graph_tools.finish(proto, card, target)
    opset = _require_opset(graph_tools.opset_of(proto), config.opset, target)
    if network.quantized:
        _settle_precisions(proto)
    trials = [inputs, *(FlatInputs.of(more).tensors for more in compare_on)]
    trials += _that_run(network, _random_inputs(inputs, config), len(names))
    errors = _write_checked(proto, trials, compared, target)
    sized = (target.stat().st_size, time.perf_counter() - started)
    facts = (*sized, opset, graph_tools.operator_counts(proto), config.runtime, _notes(plan))
    return ExportResult(target, sidecar_path(target), errors, *facts)


def _notes(plan: QuantizationPlan | None) -> tuple[str, ...]:
    """Return what a user of a quantized network should know on this processor."""
    if plan is None or plan.weight_bits < _CLIPPED_BITS:
        return ()
    note = clipping_note(processor_flags(), platform.machine())
    return () if note is None else (note,)


def _write_checked(
    proto: Any, trials: Sequence[Inputs], compared: Comparison, target: Path
) -> dict[str, float]:
    """Write the file and its description once the runtime agrees; return the errors."""
    graph_tools = load(_ONNX_GRAPH)
    with replacing(target) as draft, replacing(sidecar_path(target)) as description:
        draft.write_bytes(proto.SerializeToString())
        errors = _agreeing(proto, trials, compared, draft, target)
        if compared.own:
            graph_tools.drop_outputs(proto, compared.own)
            draft.write_bytes(proto.SerializeToString())
            _open_checked(draft, target, compared.runtime)
        shapes = [graph_tools.tensor_shapes(of) for of in (proto.graph.input, proto.graph.output)]
        description.write_text(to_sidecar(compared.card, *shapes), encoding="utf-8")
    return errors


def _agreeing(
    proto: Any, trials: Sequence[Inputs], compared: Comparison, draft: Path, target: Path
) -> dict[str, float]:
    """Return the errors on the runtime of a comparison, once every runtime that must agrees."""
    found: dict[str, dict[str, float]] = {}
    for runtime in _runtimes(compared.runtime, plan_of(compared.network.network)):
        one = replace(compared, runtime=runtime)
        errors = one.errors(_open_checked(draft, target, runtime), trials)
        one.require_agreement(errors, target)
        require_exact_file(proto, one, trials, errors, target)
        found[runtime] = errors
    return found[compared.runtime]


def _runtimes(named: str, plan: QuantizationPlan | None) -> tuple[str, ...]:
    """Return the runtimes that a file must agree with PyTorch on, the named one first."""
    own = "" if plan is None else plan.runtime
    return (named,) if own in ("", named) else (named, own)


def _require_opset(found: int, wanted: int, target: Path) -> int:
    """Return the operator set of a file; another one than the default must have been written."""
    if found != wanted and wanted != OPSET:
        raise ExportError(
            f"'{target}' must have the requested operator set. Received {found} where "
            f"{wanted} was requested, because torch's exporter cannot write this network with it. "
            f"Nothing was written; give opset={found}, or leave it out."
        )
    return found


def _checked_target(path: str | os.PathLike[str]) -> Path:
    target = Path(path)
    if target.suffix != ".onnx":
        raise ExportError(
            f"The path of an ONNX export must end in '.onnx'. Received: '{target}'. Rename it."
        )
    return target


def _settle_precisions(proto: Any) -> None:
    """Make integers of rounded weights, and keep runtimes from rounding the others, in place."""
    load(_INTEGER_GRAPH).fold_integers(proto)
    load(_FLOAT_LAYERS).keep_float(proto)
    # Runtimes infer the shapes of inner tensors, which are a fortieth of a small network's file.
    del proto.graph.value_info[:]


def _network(
    model: nn.Module, postprocess: nn.Module | None, given: FlatInputs
) -> InferenceNetwork:
    if any(tensor.is_meta for _, tensor, _ in held_tensors(model)):
        raise ExportError(
            f"A model must have weights to be exported. Received a {type(model).__name__} on the "
            "meta device, which has none. Load weights into it first."
        )
    try:
        return InferenceNetwork(model, postprocess, given)
    except (RuntimeError, TypeError, ValueError, AttributeError, NotImplementedError) as error:
        raise ExportError(
            "A model must be one that can be copied in float32 to be exported. Received from "
            f"{type(model).__name__}: {str(error).splitlines()[0]}. Give its plain modules."
        ) from error


def _input_names(given: FlatInputs, config: OnnxConfig) -> tuple[str, ...]:
    names = config.input_names or given.names
    if len(names) != len(given.tensors) or len(set(names)) != len(names):
        raise ExportError(
            f"The example has {counted(len(given.tensors), 'input')}, so as many different names "
            f"must be given. Received: {', '.join(names)}. Correct the input names."
        )
    return names


def _random_inputs(inputs: Inputs, config: OnnxConfig) -> Iterator[Inputs]:
    """Yield random inputs like the example's; whole numbers stay the example's own."""
    generator = torch.Generator().manual_seed(config.seed)
    flags = batched(inputs)
    for batch in (1, 3, None) if config.dynamic_batch else (None, None):
        drawn = []
        for item, has_batch in zip(inputs, flags, strict=True):
            size = batch if has_batch and batch else None
            if item.is_floating_point():
                shape = (size, *item.shape[1:]) if size else item.shape
                drawn.append(torch.randn(shape, generator=generator))
            else:
                drawn.append(torch.cat([item[:1]] * size) if size else item)
        yield tuple(drawn)


def _open_checked(draft: Path, target: Path, runtime: str) -> OpenModel:
    title = require_installed(runtime).title
    try:
        load(_ONNX_GRAPH).check_file(draft)
        require_survival(draft, target.name, runtime=runtime)
        settings = OpenSettings(threads=torch.get_num_threads())
        return runtime_by_name(runtime).open(draft, settings)
    except ConfigError:
        raise
    except MeasureError as error:
        raise ExportError(f"{error} '{target}' was not written.") from error
    except Exception as error:  # exceptions of runtimes have no common base
        raise ExportError(
            f"'{target}' must pass ONNX's checker and load in {title}. "
            f"Received: {' '.join(str(error).split())}. Nothing was written; try another opset."
        ) from error


def _that_run(network: InferenceNetwork, drawn: Iterable[Inputs], outputs: int) -> Iterator[Inputs]:
    """Yield random inputs that the model takes: some only take values of a kind."""
    for inputs in drawn:
        with suppress(Exception):  # Whatever the code of the model raises.
            if len(network.outputs(inputs)) == outputs:
                yield inputs
