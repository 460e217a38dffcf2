"""Measuring process: holds one model and times it (`python -m flyweight.measuring.worker PARENT`).

It reads one JSON request per line from its standard input and writes one JSON line in answer, until
the input ends. It imports nothing but NumPy and the runtime, so that its memory is the model's.
When the process with the number PARENT has ended, it ends at once, also in the middle of an
inference.

Requests: `start` (pin to cores, import the runtime), `load`, `prepare` (make inputs, warm up),
`block` (time some runs), `operators` (time every operator of a file), `optimized` (the operators
that a file becomes), `memory`. Every answer is `{"ok": ...}` or `{"error": one line, "kind":
exception class}`.
"""

import gc
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TextIO

from flyweight.on_demand import load
from flyweight.runtimes.protocol import FLOAT32, OpenModel, OpenSettings, Runtime
from flyweight.runtimes.runtime_table import DEFAULT_RUNTIME, runtime_by_name
from flyweight.runtimes.timing import time_runs

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

_PARENT_SECONDS = 0.2

# NumPy and the runtime are imported after the process is pinned: threads that they start then
# stay on the same cores.
_RANDOM_INPUTS = "flyweight.runtimes.random_inputs:random_inputs"
_OPERATORS_IN = "flyweight.measuring.onnxruntime_graph:operators_in"  # imports onnx


def main() -> int:
    """Answer requests until the input ends."""
    # The parent handles Ctrl-C; the child ends when its input does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = _private_stdout()
    child = _Child()
    requests: SimpleQueue[str | None] = SimpleQueue()
    threading.Thread(target=_receive, args=(requests, _parent()), daemon=True).start()
    for line in iter(requests.get, None):
        request = json.loads(line)
        try:
            answer = {"ok": child.answer(request)}
        except Exception as error:  # noqa: BLE001 - exceptions of runtimes share no base class
            text = " ".join(str(error).split())
            answer = {"error": text or type(error).__name__, "kind": type(error).__name__}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    return 0


def _parent() -> int:
    # Given, because a parent that has ended by now is our parent no more.
    return int(sys.argv[1]) if len(sys.argv) > 1 else os.getppid()


def _receive(requests: "SimpleQueue[str | None]", parent: int) -> None:
    """Pass requests on; end the process if the input ended because its parent did.

    Runs in a thread, because an inference can take any time. Runtimes let other threads run.
    """
    for line in sys.stdin:
        requests.put(line)
    requests.put(None)
    while os.getppid() == parent:  # The system closes the pipe a little before.
        time.sleep(_PARENT_SECONDS)
    os._exit(1)


class _Child:
    """One model in one process."""

    def __init__(self) -> None:
        self._runtime: Runtime | None = None
        self._model: OpenModel | None = None
        self._inference: Callable[[], object] | None = None
        self._baseline_bytes: int | None = None
        self._operations: dict[str, Callable[..., Any]] = {
            "start": self._start,
            "load": self._load,
            "prepare": self._prepare,
            "block": self._block,
            "operators": self._operators_of,
            "optimized": self._optimized,
            "memory": self._memory,
        }

    def answer(self, request: dict[str, Any]) -> Any:
        operation = self._operations[request.pop("op")]
        return operation(**request)

    def _start(self, cores: list[int], runtime: str = DEFAULT_RUNTIME) -> dict[str, Any]:
        pinned = _pin(cores)
        self._runtime = runtime_by_name(runtime)
        return {"pinned": pinned, "versions": self._runtime.versions(), "pid": os.getpid()}

    def _load(
        self, path: str, threads: int, spinning: bool, precision: str = FLOAT32
    ) -> dict[str, Any]:
        runtime = self._started()
        gc.collect()
        _reset_peak()
        self._baseline_bytes = _memory_bytes("VmRSS")
        settings = OpenSettings(threads, precision, spinning)
        started = time.perf_counter()
        self._model = runtime.open(path, settings)
        load_ms = (time.perf_counter() - started) * 1e3
        return {"load_ms": load_ms, "inputs": [asdict(item) for item in self._model.inputs]}

    def _prepare(self, shapes: dict[str, list[int]], warmup: int, seed: int) -> dict[str, float]:
        model = self._model
        if model is None:
            raise RuntimeError("a file must be loaded before its inputs are prepared")
        self._inference = model.inference(load(_RANDOM_INPUTS)(model.inputs, shapes, seed=seed))
        for _ in range(warmup):
            self._inference()
        started = time.perf_counter()
        self._inference()
        return {"estimate_ms": (time.perf_counter() - started) * 1e3}

    def _block(self, runs: int) -> dict[str, Any]:
        if self._inference is None:
            raise RuntimeError("inputs must be prepared before runs are timed")
        wall_ms, cpu_ms = time_runs(self._inference, runs)
        return {"wall_ms": wall_ms, "cpu_ms": cpu_ms}

    def _operators_of(
        self, path: str, settings: dict[str, Any], seconds: float, runs: int, seed: int
    ) -> list[dict[str, Any]]:
        """Return the operators that a file with static inputs executes, with their times."""
        found = self._started().operators(
            path,
            OpenSettings(**settings),
            partial(load(_RANDOM_INPUTS), seed=seed),
            runs=runs,
            seconds=seconds,
        )
        return [asdict(operator) for operator in found]

    def _optimized(self, path: str, settings: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the operators that a file becomes."""
        found = self._started().optimized(path, OpenSettings(**settings), load(_OPERATORS_IN))
        return [asdict(operator) for operator in found]

    def _memory(self) -> dict[str, int | None]:
        return {"peak": _memory_bytes("VmHWM"), "baseline": self._baseline_bytes}

    def _started(self) -> Runtime:
        if self._runtime is None:
            self._runtime = runtime_by_name(DEFAULT_RUNTIME)
        return self._runtime


def _private_stdout() -> TextIO:
    # Output of native libraries must not mix with the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _pin(cores: list[int]) -> bool:
    if not cores or not hasattr(os, "sched_setaffinity"):
        return False
    try:
        os.sched_setaffinity(0, cores)
    except OSError:
        return False
    return True


def _reset_peak() -> None:
    # Linux only; elsewhere the peak includes what importing the runtime took.
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _memory_bytes(field: str) -> int | None:
    """Return a `/proc/self/status` figure, or the platform's nearest, in bytes."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return _peak_without_proc()
    for line in status.splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    return None


def _peak_without_proc() -> int | None:
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    raise SystemExit(main())
