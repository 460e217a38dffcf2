"""Exactness: a file of a network with exact grids must compute the bits of PyTorch."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flyweight.errors import ExportError
from flyweight.exporting.file_comparison import Comparison
from flyweight.exporting.flat_inputs import Inputs
from flyweight.on_demand import load
from flyweight.quantization.network import QuantizedForward, forward_of
from flyweight.quantization.rounded_tensors import rounded_tensors
from flyweight.runtimes.protocol import OpenModel, OpenSettings
from flyweight.runtimes.runtime_table import runtime_by_name, runtime_entry

_ROUNDED_NODES = "flyweight.exporting.rounded_nodes"  # imports onnx


def require_exact_file(
    proto: Any,
    compared: Comparison,
    trials: Iterable[Inputs],
    errors: Mapping[str, float],
    target: Path,
) -> None:
    """Check that the outputs of an exact network are equal in every bit.

    Of a network with something appended these are its own outputs. The rows that a two-stage
    detector chooses are not compared.

    Args:
        proto: The `onnx.ModelProto` that was compared.
        compared: How.
        trials: The inputs it was compared on.
        errors: From `compared`.
        target: The file to write.

    Raises:
        ExportError: A value differs; the first layer that rounds to other integers is named.
    """
    forward = forward_of(compared.network.network)
    if forward is None or not forward.plan.exact:
        return
    wrong = [name for name in compared.own or compared.outputs if errors[name]]
    if not wrong:
        return
    runtime = compared.runtime
    layer = _first_layer(proto, compared, trials, forward)
    where = "at these outputs" if layer is None else f"first after the layer '{layer}'"
    other = forward.plan.runtime != runtime
    remedy = f"quantize for the runtime '{runtime}'" if other else "quantize without exact"
    raise ExportError(
        f"'{target}' must compute the bits of PyTorch in {runtime_entry(runtime).title}, because "
        f"its network was quantized with exact. Received other values of {', '.join(wrong)}, "
        f"{where}. Nothing was written; {remedy}."
    )


def _first_layer(
    proto: Any, compared: Comparison, trials: Iterable[Inputs], forward: QuantizedForward
) -> str | None:
    def opened(path: Path) -> OpenModel:
        return runtime_by_name(compared.runtime).open(path, OpenSettings())

    for trial in trials:
        tensors = rounded_tensors(forward, lambda one=trial: compared.network.own_outputs(one))  # type: ignore[misc]
        given = {name: one.numpy() for name, one in zip(compared.inputs, trial, strict=True)}
        found: str | None = load(_ROUNDED_NODES).first_difference(proto, tensors, given, opened)
        if found is not None:
            return found
    return None
