"""ONNX by the dynamo exporter: folded, checked, compared with PyTorch, and only then written."""

import copy
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from flyweight.errors import ExportError
from flyweight.exporting.hygiene import leftovers, strip_traces
from flyweight.exporting.nms import Detections, onnx_translations
from flyweight.exporting.parity import (
    Outputs,
    detection_errors,
    label_errors,
    set_errors,
    value_errors,
)
from flyweight.files import replacing
from flyweight.runtimes.model_card import ModelCard, sidecar_path, to_properties, to_sidecar
from flyweight.runtimes.onnxruntime_session import open_session
from flyweight.zoo.backbones.blocks import thaw_norms

# The version torch's exporter writes natively; ONNX Runtime since 1.17 and OpenVINO run it.
OPSET = 20
_DECODED = {"classify": ("scores",), "segment": ("labels",)}
_SINGLE_FILE_BYTES = 2**31 - 2**20  # protobuf's limit, less room for the graph itself

Example = tuple[Tensor, ...]


@dataclass(frozen=True)
class OnnxConfig:
    """How to export.

    Attributes:
        input_names: Names of the inputs; empty for "images" (or "input_0", ... of several).
        output_names: Names of the outputs; empty for those of what is appended, for the fields of
            a named tuple, or else for "output_0", ... or, where the card says that they are decoded
            or detections, for "boxes", "scores", "labels", "counts" of a detector, "scores" of a
            classifier, "labels" of a segmenter.
        dynamic_batch: Leave the first size of every input free.
        opset: Version of the operator set.
        tolerance: Greatest relative error against PyTorch, see `export.parity`.
        seed: Of the random inputs that are compared.
    """

    input_names: tuple[str, ...] = ()
    output_names: tuple[str, ...] = ()
    dynamic_batch: bool = False
    opset: int = OPSET
    tolerance: float = 1e-3
    seed: int = 0


DEFAULT = OnnxConfig()


@dataclass(frozen=True)
class ExportResult:
    """What was written.

    Attributes:
        path: The ONNX file.
        sidecar: The readable description beside it.
        max_error: Output name to the largest relative error against PyTorch.
        size_bytes: Size of the ONNX file.
        seconds: Time the export took, checks included.
        opset: Version of the operator set.
        operators: Operator name to how many of them the graph has.
    """

    path: Path
    sidecar: Path
    max_error: dict[str, float]
    size_bytes: int
    seconds: float
    opset: int
    operators: dict[str, int]


def to_onnx(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    example: Example,
    card: ModelCard | None = None,
    postprocess: nn.Module | None = None,
    compare_on: Sequence[Example] = (),
    config: OnnxConfig = DEFAULT,
) -> ExportResult:
    """Write `model` as one ONNX file with its description inside and beside it.

    The model is copied, put into evaluation mode, in float32 on the CPU; the caller's is untouched.
    The file appears under its name only after the checker accepts it, ONNX Runtime loads it and its
    outputs agree with PyTorch's on `example`, on random inputs and on `compare_on`.

    Args:
        model: The network.
        path: Where to write; the description goes to the same name with `.yaml`.
        example: Inputs of the shapes to export.
        card: The description that travels with it; by default the name of the model's class.
        postprocess: Called with what `model` returns and appended to the graph: a decoder, or
            `nms.Detections`.
        compare_on: Further inputs to compare on, such as real images.
        config: Names, operator set, tolerance.

    Raises:
        ExportError: The model cannot be written in ONNX, the graph is not clean, or an output
            differs from PyTorch's by more than the tolerance.
        FileError: `path` cannot be written.
    """
    started = time.perf_counter()
    target = Path(path)
    if target.suffix != ".onnx":
        raise ExportError(
            f"The path of an ONNX export must end in '.onnx'. Received: '{target}'. Rename it."
        )
    card = card or ModelCard(name=type(model).__name__)
    pipeline = _Pipeline(model, postprocess)
    inputs = tuple(_as_float32(item) for item in example)
    names = _output_names(pipeline, inputs, card, config)
    proto = _finish(_convert(pipeline, inputs, names, config, target), card, target)
    sidecar = sidecar_path(target)
    trials = [inputs, *_random_inputs(inputs, config)]
    trials += [tuple(_as_float32(item) for item in given) for given in compare_on]
    errors_of = _comparison(pipeline, card, config)
    with replacing(target) as draft, replacing(sidecar) as description:
        draft.write_bytes(proto.SerializeToString())
        session = _open_checked(draft, target)
        errors = _compare(pipeline, session, trials, names, errors_of)
        _require_agreement(errors, target, config.tolerance)
        shapes = [_shapes(group) for group in (proto.graph.input, proto.graph.output)]
        description.write_text(to_sidecar(card, *shapes), encoding="utf-8")
    return ExportResult(
        path=target,
        sidecar=sidecar,
        max_error=errors,
        size_bytes=target.stat().st_size,
        seconds=time.perf_counter() - started,
        opset=config.opset,
        operators=_census(proto),
    )


def _comparison(
    pipeline: "_Pipeline", card: ModelCard, config: OnnxConfig
) -> Callable[[Outputs, Outputs], dict[str, float]]:
    """Return how outputs are compared: value by value, or as sets where order is by chance."""
    if card.outputs == "detections":
        return partial(detection_errors, tolerance=config.tolerance)
    if card.outputs == "decoded" and card.task == "segment":
        return label_errors
    sets = pipeline.unordered
    return partial(set_errors, sets=sets, tolerance=config.tolerance) if sets else value_errors


class _Pipeline(nn.Module):
    """A copy of the network for inference, with what is appended to it."""

    def __init__(self, model: nn.Module, postprocess: nn.Module | None) -> None:
        super().__init__()
        self.network = copy.deepcopy(model)
        thaw_norms(self.network)
        self.postprocess = copy.deepcopy(postprocess)
        self.cpu().float().eval()
        self.requires_grad_(False)

    @property
    def unordered(self) -> tuple[tuple[str, ...], ...]:
        """Names of outputs whose rows belong together and may come in any order."""
        last = self.network if self.postprocess is None else self.postprocess
        found: tuple[tuple[str, ...], ...] = getattr(last, "unordered", ())
        return found

    @property
    def names(self) -> tuple[str, ...] | None:
        """Names of the outputs of what is appended, where it tells them."""
        found: tuple[str, ...] | None = getattr(self.postprocess, "output_names", None)
        return found

    def forward(self, *inputs: Tensor) -> Any:
        outputs = self.network(*inputs)
        return outputs if self.postprocess is None else self.postprocess(outputs)


def _as_float32(tensor: Tensor) -> Tensor:
    plain = tensor.detach().cpu()
    return plain.float() if plain.is_floating_point() else plain


def _flat_outputs(pipeline: _Pipeline, inputs: Example) -> list[Tensor]:
    return list(_named_outputs(pipeline, inputs).values())


def _named_outputs(pipeline: _Pipeline, inputs: Example) -> dict[str, Tensor]:
    """Return the outputs by their place: `.boxes` in a named tuple, `[0]` in a plain one."""
    with torch.no_grad():
        leaves, _ = torch.utils._pytree.tree_flatten_with_path(pipeline(*inputs))
    keyed = ((torch.utils._pytree.keystr(path), leaf) for path, leaf in leaves)
    return {place: leaf for place, leaf in keyed if isinstance(leaf, Tensor)}


def _output_names(
    pipeline: _Pipeline, inputs: Example, card: ModelCard, config: OnnxConfig
) -> tuple[str, ...]:
    places = list(_named_outputs(pipeline, inputs))
    count = len(places)
    if config.output_names:
        names = config.output_names
    elif pipeline.names is not None and len(pipeline.names) == count:
        names = pipeline.names
    elif all(place.startswith(".") for place in places):
        names = tuple(place[1:].replace(".", "_") for place in places)
    elif card.outputs != "raw" and count <= len(_DECODED.get(card.task, Detections.output_names)):
        names = _DECODED.get(card.task, Detections.output_names)[:count]
    else:
        names = tuple(f"output_{index}" for index in range(count))
    if len(names) != count or len(set(names)) != count:
        raise ExportError(
            f"The model gives {count} outputs, so as many different names must be given. "
            f"Received: {', '.join(names)}. Correct the output names."
        )
    return names


def _input_names(count: int, config: OnnxConfig) -> tuple[str, ...]:
    names = config.input_names or (
        ("images",) if count == 1 else tuple(f"input_{index}" for index in range(count))
    )
    if len(names) != count:
        raise ExportError(
            f"The example has {count} inputs, so as many names must be given. "
            f"Received: {', '.join(names)}. Correct the input names."
        )
    return names


def _convert(
    pipeline: _Pipeline,
    inputs: Example,
    names: tuple[str, ...],
    config: OnnxConfig,
    target: Path,
) -> Any:
    """Return the `onnx.ModelProto` of the pipeline, optimised."""
    shapes = None
    if config.dynamic_batch:
        shapes = (tuple({0: "batch"} for _ in inputs),)
        # The exporter takes a size of 1 for a constant.
        inputs = tuple(torch.cat([item, item]) if len(item) == 1 else item for item in inputs)
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                pipeline,
                inputs,
                dynamo=True,
                verbose=False,
                input_names=_input_names(len(inputs), config),
                output_names=names,
                opset_version=config.opset,
                dynamic_shapes=shapes,
                custom_translation_table=onnx_translations(),
                optimize=True,
            )
    except torch.onnx.OnnxExporterError as error:
        _refuse_model(error, target)
    if program is None:
        raise ExportError(f"'{target}' could not be made: the exporter returned nothing.")
    weights = (item.const_value for item in program.model.graph.initializers.values())
    size = sum(weight.nbytes for weight in weights if weight is not None)
    if size > _SINGLE_FILE_BYTES:
        raise ExportError(
            f"One ONNX file must hold less than 2 GB. Received: {size / 1e9:.1f} GB of weights for "
            f"'{target}'. Prune the model first."
        )
    return program.model_proto


def _refuse_model(error: Exception, target: Path) -> NoReturn:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    reason = next(iter(str(cause).strip().splitlines()), type(cause).__name__)
    raise ExportError(
        f"The model must be expressible in ONNX to become '{target}'. Received: "
        f"{type(cause).__name__}: {reason}. Rewrite that part with tensor operations."
    ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what torch's exporter says of its own workings."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", message=r".*# The axis name: .*will not be used")
        yield


def _finish(proto: Any, card: ModelCard, target: Path) -> Any:
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
    return proto


def _random_inputs(inputs: Example, config: OnnxConfig) -> Iterator[Example]:
    """Yield random inputs like the example's; whole numbers stay the example's own."""
    generator = torch.Generator().manual_seed(config.seed)
    for batch in (1, 3, None) if config.dynamic_batch else (None, None):
        yield tuple(
            torch.randn((batch or len(item), *item.shape[1:]), generator=generator)
            if item.is_floating_point()
            else torch.cat([item[:1]] * batch)
            if batch
            else item
            for item in inputs
        )


def _open_checked(draft: Path, target: Path) -> Any:
    import onnx

    try:
        onnx.checker.check_model(str(draft), full_check=True)
        return open_session(draft, threads=torch.get_num_threads())
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise ExportError(
            f"'{target}' must pass ONNX's checker and load in ONNX Runtime. "
            f"Received: {' '.join(str(error).split())}. Nothing was written; try another opset."
        ) from error


def _compare(
    pipeline: _Pipeline,
    session: Any,
    trials: Sequence[Example],
    names: tuple[str, ...],
    errors_of: Callable[[Outputs, Outputs], dict[str, float]],
) -> dict[str, float]:
    """Return the largest error of every output over all trials."""
    inputs = [item.name for item in session.get_inputs()]
    worst = dict.fromkeys(names, 0.0)
    for trial in trials:
        expected = dict(zip(names, _flat_outputs(pipeline, trial), strict=True))
        feed = {name: item.numpy() for name, item in zip(inputs, trial, strict=True)}
        answers = session.run(list(names), feed)
        received = {name: torch.from_numpy(item) for name, item in zip(names, answers, strict=True)}
        errors = errors_of(expected, received)
        worst = {name: max(worst[name], errors[name]) for name in names}
    return worst


def _require_agreement(errors: dict[str, float], target: Path, tolerance: float) -> None:
    name = max(errors, key=lambda output: errors[output])
    if not errors[name] <= tolerance:
        raise ExportError(
            f"Output '{name}' of '{target}' must agree with PyTorch within {tolerance:g} "
            f"(relative). Received: {errors[name]:.3g}. Nothing was written; check for operations "
            "that depend on chance or on training mode, or raise the tolerance knowingly."
        )


def _shapes(values: Any) -> dict[str, list[int | str]]:
    return {
        item.name: [size.dim_param or size.dim_value for size in item.type.tensor_type.shape.dim]
        for item in values
    }


def _census(proto: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for node in proto.graph.node:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return dict(sorted(counts.items()))
