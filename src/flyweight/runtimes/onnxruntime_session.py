"""Opening an ONNX file with ONNX Runtime, in one place so that all users open it alike."""

from pathlib import Path
from typing import Any

NUMPY_TYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}


def open_session(
    path: str | Path, *, threads: int, spinning: bool = False, profile: str = ""
) -> Any:
    """Return an `onnxruntime.InferenceSession` on the CPU.

    All graph optimisations are on, one inference uses `threads` threads and operators run one
    after the other. Idle threads sleep unless `spinning`. With `profile`, the start of a file
    name, the session notes the time of every operator there.

    Raises:
        ImportError: ONNX Runtime is not installed.
        Exception: Whatever ONNX Runtime raises for a file that it cannot load; its exceptions
            have no common base.
    """
    import onnxruntime

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
    for pool in ("intra_op", "inter_op"):
        options.add_session_config_entry(f"session.{pool}.allow_spinning", str(int(spinning)))
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
