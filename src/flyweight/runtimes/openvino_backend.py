"""OpenVINO on the CPU, without its telemetry."""

import sys
import time
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.errors import ConfigError
from flyweight.runtimes.protocol import (
    FLOAT32,
    ExecutedOperator,
    MakeInputs,
    OpenSettings,
    OptimizedOperator,
    ReadOperators,
    TensorInfo,
)

_TELEMETRY = "openvino_telemetry"


def _without_telemetry() -> Any:
    """Return the package openvino, imported so that it reports nothing.

    `import openvino` itself reports to its makers over the network, from a thread, and writes an
    identity into the home folder. That would disturb a measurement, and no user of flyweight agreed
    to it. Without the package that does so, OpenVINO uses a stub of its own.
    """
    before = sys.modules.get(_TELEMETRY)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # makes its import fail
    try:
        import openvino
    finally:
        del sys.modules[_TELEMETRY]
        if before is not None:
            sys.modules[_TELEMETRY] = before
    return openvino


openvino = _without_telemetry()

_DEVICE = "CPU"
_HINTS = {FLOAT32: "f32", "bfloat16": "bf16", "float16": "f16"}
_CAPABILITIES = {"bfloat16": "BF16", "float16": "FP16"}
_NUMPY_NAMES = {
    "f16": "float16",
    "bf16": "bfloat16",
    "f32": FLOAT32,
    "f64": "float64",
    "boolean": "bool",
} | {
    f"{sign}{bits}": f"{name}{bits}"
    for sign, name in (("i", "int"), ("u", "uint"))
    for bits in (8, 16, 32, 64)
}
_EIGHT_BITS = ("i8", "u8")
_RESULT = "/sink_port_0"
"""What the reader of ONNX appends to the name of an output."""
_NOT_COMPUTED = frozenset({"Const", "Input", "Output"})


class OpenVinoModel:
    """An open file; see `OpenModel`."""

    def __init__(self, model: Any, compiled: Any) -> None:
        self._request = compiled.create_infer_request()
        self.inputs = tuple(_info(item) for item in compiled.inputs)
        self.outputs = tuple(_info(item) for item in compiled.outputs)
        self.properties = _properties(model)

    def run(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return every output by name."""
        found = self.inference(arrays)()
        return {item.name: found[place] for place, item in enumerate(self.outputs)}

    def inference(self, arrays: Mapping[str, NDArray[Any]]) -> Callable[[], Any]:
        """Return the shortest call that runs the model on these arrays.

        Inputs are read where they lie and outputs are copied, as ONNX Runtime does.
        """
        return partial(self._request.infer, dict(arrays), share_inputs=True)


@cache
def _core() -> Any:
    """Return the one core of this process, which lives as long as the process.

    The CPU plugin of a core sets the alternate stack on which signals of this thread are handled,
    and, when it is destroyed, sets the one that it found. Of two cores that do not end in the
    opposite order of their creation, the second sets the freed stack of the first: the next signal
    with a handler, such as Ctrl-C or the end of a child process, is then a segmentation fault
    (seen with 2026.4).
    """
    return openvino.Core()


class OpenVino:
    """OpenVINO; see `Runtime`."""

    def __init__(self) -> None:
        self._core = _core()

    def open(self, path: str | Path, settings: OpenSettings) -> OpenVinoModel:
        """Load and optimise an ONNX file or OpenVINO's own format (`.xml` with `.bin`)."""
        model, compiled = self._compile(path, settings)
        return OpenVinoModel(model, compiled)

    def operators(
        self,
        path: str | Path,
        settings: OpenSettings,
        make_inputs: MakeInputs,
        *,
        runs: int = 1,
        seconds: float = 0.0,
    ) -> tuple[ExecutedOperator, ...]:
        """Execute a file under the profiler and return the operators it executed."""
        _, compiled = self._compile(path, settings, profile=True)
        request = compiled.create_infer_request()
        arrays = make_inputs([_info(item) for item in compiled.inputs])
        call = partial(request.infer, dict(arrays), share_inputs=True, share_outputs=True)
        call()
        times: dict[str, list[float]] = {}
        began, done = time.perf_counter(), 0
        while done < runs or time.perf_counter() - began < seconds:
            call()
            done += 1
            for item in request.get_profiling_info():
                if item.status == item.Status.EXECUTED:
                    times.setdefault(item.node_name, []).append(
                        item.real_time.total_seconds() * 1e3
                    )
        executed = compiled.get_runtime_model().get_ordered_ops()
        return tuple(
            _operator(node, times[node.friendly_name])
            for node in executed
            if node.friendly_name in times and _text(node, "layerType") not in _NOT_COMPUTED
        )

    def optimized(
        self, path: str | Path, settings: OpenSettings, read: ReadOperators
    ) -> tuple[OptimizedOperator, ...]:
        """Return the operators that a file becomes, without executing them."""
        _, compiled = self._compile(path, settings)
        return tuple(
            _optimized(node)
            for node in compiled.get_runtime_model().get_ordered_ops()
            if _text(node, "layerType") not in _NOT_COMPUTED
        )

    def versions(self) -> dict[str, str]:
        """Return the versions of OpenVINO and NumPy."""
        return {"openvino": openvino.__version__.partition("-")[0], "numpy": np.__version__}

    def precisions(self) -> tuple[str, ...]:
        """Return float32 and the shorter ones that the processor has instructions for."""
        able = self._core.get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")
        return (FLOAT32, *(name for name, flag in _CAPABILITIES.items() if flag in able))

    def _compile(
        self, path: str | Path, settings: OpenSettings, *, profile: bool = False
    ) -> tuple[Any, Any]:
        known = self.precisions()
        if settings.precision not in known:
            raise ConfigError(
                f"The precision on OpenVINO must be one of {', '.join(known)} on this machine. "
                f"Received: '{settings.precision}'. Choose one of them."
            )
        model = self._core.read_model(str(path))
        options = {
            # Without this hint, processors with AMX compute float32 files in bfloat16.
            "INFERENCE_PRECISION_HINT": _HINTS[settings.precision],
            "INFERENCE_NUM_THREADS": settings.threads,
            "NUM_STREAMS": "1",
            "PERFORMANCE_HINT": "LATENCY",
            # The process is pinned instead, in the same way for every runtime.
            "ENABLE_CPU_PINNING": False,
            "PERF_COUNT": profile,
        }
        return model, self._core.compile_model(model, _DEVICE, options)


def _info(port: Any) -> TensorInfo:
    names = port.get_names()
    shape = tuple(
        size.get_length() if size.is_static else None for size in port.get_partial_shape()
    )
    own = port.get_element_type().get_type_name()
    # A tensor that passes an Identity has the names of both ends; the node has that of the file.
    name = port.get_node().get_friendly_name().removesuffix(_RESULT)
    if names and name not in names:
        name = port.get_any_name()
    return TensorInfo(name, _NUMPY_NAMES.get(own, own), shape)


def _properties(model: Any) -> dict[str, str]:
    """Return the texts of the file; the reader of ONNX keeps them under "framework"."""
    if not model.has_rt_info(["framework"]):
        return {}
    found = model.get_rt_info(["framework"]).value
    return {str(name): str(getattr(item, "value", item)) for name, item in found.items()}


def _operator(node: Any, times_ms: list[float]) -> ExecutedOperator:
    precision = _text(node, "runtimePrecision")
    originals = _text(node, "originalLayersNames")
    return ExecutedOperator(
        name=node.friendly_name,
        kind=_text(node, "layerType"),
        precision=_NUMPY_NAMES.get(precision, precision),
        nodes=tuple(node for node in originals.split(",") if node),
        times_ms=tuple(times_ms),
    )


def _optimized(node: Any) -> OptimizedOperator:
    sources = (port.get_source_output().get_node().friendly_name for port in node.inputs())
    originals = [one for one in _text(node, "originalLayersNames").split(",") if one]
    name = node.friendly_name
    names = tuple(dict.fromkeys((*originals, name)))
    return OptimizedOperator(
        name, _text(node, "layerType"), _kernel_precision(node), names, tuple(sources), (name,)
    )


def _kernel_precision(node: Any) -> str:
    """Return the precision of the kernel, which is the end of its name, such as `gemm_mlas_f32`.

    The type of the input says less: weights of 8 bits are also multiplied in float.
    """
    kernel = _text(node, "primitiveType").rpartition("_")[2].lower()
    precision = kernel if kernel in _NUMPY_NAMES else _text(node, "runtimePrecision")
    return "int8" if precision in _EIGHT_BITS else _NUMPY_NAMES.get(precision, precision)


def _text(node: Any, key: str) -> str:
    """Return one of the facts that OpenVINO notes on an executed node."""
    facts = node.get_rt_info()
    return str(getattr(facts[key], "value", facts[key])) if key in facts else ""
