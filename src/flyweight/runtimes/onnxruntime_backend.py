"""ONNX Runtime on the CPU."""

import json
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
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

_NUMPY_NAMES = {"float": FLOAT32, "double": "float64"}
_TIMED = "_kernel_time"
# Appended to a name: computes in blocks of channels; was renamed because another has that name.
_SUFFIXES = re.compile(r"(_nchwc)?(_token_\d+)?$")


class OnnxRuntimeModel:
    """An open file; see `OpenModel`."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.inputs = tuple(_info(item) for item in session.get_inputs())
        self.outputs = tuple(_info(item) for item in session.get_outputs())

    @property
    def properties(self) -> Mapping[str, str]:
        """The `metadata_props` of the file."""
        properties: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        return properties

    def run(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return every output by name."""
        names = [item.name for item in self.outputs]
        return dict(zip(names, self._session.run(names, dict(arrays)), strict=True))

    def inference(self, arrays: Mapping[str, NDArray[Any]]) -> Callable[[], object]:
        """Return the shortest call that runs the model on these arrays."""
        return partial(self._session.run, None, dict(arrays))


class OnnxRuntime:
    """ONNX Runtime; see `Runtime`."""

    def open(self, path: str | Path, settings: OpenSettings) -> OnnxRuntimeModel:
        """Load and optimise an ONNX file."""
        self._require(settings.precision)
        session = open_session(path, threads=settings.threads, spinning=settings.spinning)
        return OnnxRuntimeModel(session)

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
        self._require(settings.precision)
        with tempfile.TemporaryDirectory() as folder:
            session = open_session(
                path,
                threads=settings.threads,
                spinning=settings.spinning,
                profile=str(Path(folder) / "times"),
            )
            arrays = make_inputs([_info(item) for item in session.get_inputs()])
            # The other outputs are computed too, but not copied.
            call = partial(session.run, [session.get_outputs()[0].name], dict(arrays))
            call()
            began, done = time.perf_counter(), 0
            while done < runs or time.perf_counter() - began < seconds:
                call()
                done += 1
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        return _operators_in(events)

    def optimized(
        self, path: str | Path, settings: OpenSettings, read: ReadOperators
    ) -> tuple[OptimizedOperator, ...]:
        """Return the operators that a session executes for a file, without executing them."""
        self._require(settings.precision)
        with tempfile.TemporaryDirectory() as folder:
            written = Path(folder) / "optimized.onnx"
            open_session(path, threads=settings.threads, optimized=str(written))
            return read(written)

    def versions(self) -> dict[str, str]:
        """Return the versions of ONNX Runtime and NumPy."""
        return {"onnxruntime": onnxruntime.__version__, "numpy": np.__version__}

    def precisions(self) -> tuple[str, ...]:
        """Return float32: ONNX Runtime's kernels for CPUs compute float operations as the file."""
        return (FLOAT32,)

    def _require(self, precision: str) -> None:
        if precision not in self.precisions():
            raise ConfigError(
                f"The precision on ONNX Runtime must be {FLOAT32}. Received: '{precision}'. "
                "Use the runtime openvino for bfloat16."
            )


def open_session(
    path: str | Path,
    *,
    threads: int,
    spinning: bool = False,
    profile: str = "",
    optimized: str = "",
) -> Any:
    """Return an `onnxruntime.InferenceSession` on the CPU.

    All graph optimisations are on, one inference uses `threads` threads and operators run one
    after the other. Idle threads sleep unless `spinning`. With `profile`, the start of a file
    name, the session writes the time of every operator there; with `optimized`, a path, the graph
    that it executes.

    Raises:
        Exception: Any error of ONNX Runtime for a file that it cannot load; its exceptions
            have no common base.
    """
    onnxruntime.set_default_logger_severity(3)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    if profile:
        options.enable_profiling = True
        options.profile_file_prefix = profile
    if optimized:
        options.optimized_model_filepath = optimized
    for pool in ("intra_op", "inter_op"):
        options.add_session_config_entry(f"session.{pool}.allow_spinning", str(int(spinning)))
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _info(item: Any) -> TensorInfo:
    inner = item.type.removeprefix("tensor(").removesuffix(")")
    name = _NUMPY_NAMES.get(inner, inner) if item.type.startswith("tensor(") else item.type
    return TensorInfo(item.name, name, tuple(item.shape))


def _operators_in(events: list[dict[str, Any]]) -> tuple[ExecutedOperator, ...]:
    """Return the operators in a profile, in the order of their first run, which is not timed."""
    found: dict[str, tuple[dict[str, Any], list[float]]] = {}
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith(_TIMED):
            _, times = found.setdefault(name.removesuffix(_TIMED), (event["args"], []))
            times.append(event["dur"] / 1e3)
    return tuple(
        ExecutedOperator(
            name=name,
            kind=str(details["op_name"]),
            precision=_precision(details),
            # Operators that ONNX Runtime adds to change the layout are no nodes of the file.
            nodes=()
            if str(details["op_name"]).startswith("Reorder")
            else (_SUFFIXES.sub("", name),),
            times_ms=tuple(times[1:]),
        )
        for name, (details, times) in found.items()
    )


def _precision(details: Mapping[str, Any]) -> str:
    """Return the type of the first tensor that the operator reads, or else writes."""
    for tensors in (details.get("input_type_shape"), details.get("output_type_shape")):
        for tensor in tensors or ():
            for name in tensor:
                return _NUMPY_NAMES.get(str(name), str(name))
    return ""
