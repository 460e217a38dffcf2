"""The child process that holds one model and times it: `python -m flyweight.measuring.worker`.

It reads one JSON request per line from its standard input and answers each with one JSON line,
until the input ends. It imports nothing but NumPy and the runtime, so that its memory is the
model's.

Requests: `start` (pin, import), `load`, `prepare` (make inputs, warm up), `block` (time some runs),
`operators` (time every operator of a file), `memory`. Every answer is `{"ok": ...}` or `{"error":
one line, "kind": exception class}`.
"""

import gc
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from flyweight.runtimes.onnxruntime_session import NUMPY_TYPES, open_session


def main() -> int:
    """Answer requests until the input ends."""
    # Ctrl-C is the parent's to handle; the child ends when its input does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = _private_stdout()
    child = _Child()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"ok": child.answer(request)}
        except Exception as error:  # noqa: BLE001 - runtimes share no base; the parent must hear all
            text = " ".join(str(error).split())
            answer = {"error": text or type(error).__name__, "kind": type(error).__name__}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    return 0


class _Child:
    """One model in one process."""

    def __init__(self) -> None:
        self._session: Any = None
        self._feed: dict[str, Any] = {}
        self._baseline_bytes: int | None = None
        self._operations: dict[str, Callable[..., Any]] = {
            "start": self._start,
            "load": self._load,
            "prepare": self._prepare,
            "block": self._block,
            "operators": self._operators_of,
            "memory": self._memory,
        }

    def answer(self, request: dict[str, Any]) -> Any:
        operation = self._operations[request.pop("op")]
        return operation(**request)

    def _start(self, cores: list[int]) -> dict[str, Any]:
        pinned = _pin(cores)
        import numpy
        import onnxruntime

        versions = {"onnxruntime": onnxruntime.__version__, "numpy": numpy.__version__}
        return {"pinned": pinned, "versions": versions, "pid": os.getpid()}

    def _load(self, path: str, threads: int, spinning: bool) -> dict[str, Any]:
        gc.collect()
        _reset_peak()
        self._baseline_bytes = _memory_bytes("VmRSS")
        started = time.perf_counter()
        self._session = open_session(path, threads=threads, spinning=spinning)
        load_ms = (time.perf_counter() - started) * 1e3
        inputs = [
            {"name": item.name, "type": item.type, "shape": list(item.shape)}
            for item in self._session.get_inputs()
        ]
        return {"load_ms": load_ms, "inputs": inputs}

    def _prepare(self, shapes: dict[str, list[int]], warmup: int, seed: int) -> dict[str, float]:
        import numpy

        generator = numpy.random.default_rng(seed)
        for item in self._session.get_inputs():
            values = generator.standard_normal(shapes[item.name])
            if not item.type.startswith(("tensor(float", "tensor(double")):
                values = abs(values)  # small non-negative whole numbers suit indices and bytes
            self._feed[item.name] = values.astype(NUMPY_TYPES[item.type])
        for _ in range(warmup):
            self._session.run(None, self._feed)
        started = time.perf_counter()
        self._session.run(None, self._feed)
        return {"estimate_ms": (time.perf_counter() - started) * 1e3}

    def _block(self, runs: int) -> dict[str, Any]:
        run, feed, clock = self._session.run, self._feed, time.perf_counter_ns
        run(None, feed)  # the caches still hold the previous block's model
        times = [0] * runs
        gc.disable()
        cpu = time.process_time_ns()
        for index in range(runs):
            started = clock()
            run(None, feed)
            times[index] = clock() - started
        cpu = time.process_time_ns() - cpu
        gc.enable()
        return {"wall_ms": [ns / 1e6 for ns in times], "cpu_ms": cpu / 1e6 / runs}

    def _operators_of(
        self, path: str, threads: int, seconds: float, runs: int, seed: int
    ) -> dict[str, list[float]]:
        """Return the times of every operator of a file with static inputs, in ms, run by run."""
        import numpy

        generator = numpy.random.default_rng(seed)
        with tempfile.TemporaryDirectory() as folder:
            session = open_session(path, threads=threads, profile=str(Path(folder) / "times"))
            feed = {
                item.name: generator.standard_normal(item.shape).astype(NUMPY_TYPES[item.type])
                for item in session.get_inputs()
            }
            first = [session.get_outputs()[0].name]  # others are computed too, but not copied
            session.run(first, feed)
            began, done = time.perf_counter(), 0
            while done < runs or time.perf_counter() - began < seconds:
                session.run(first, feed)
                done += 1
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        times: dict[str, list[float]] = {}
        for event in events:
            name = str(event.get("name", ""))
            if event.get("cat") == "Node" and name.endswith(_TIMED):
                times.setdefault(name.removesuffix(_TIMED), []).append(event["dur"] / 1e3)
        return {name: found[1:] for name, found in times.items()}  # the first run warms up

    def _memory(self) -> dict[str, int | None]:
        return {"peak": _memory_bytes("VmHWM"), "baseline": self._baseline_bytes}


_TIMED = "_kernel_time"


def _private_stdout() -> TextIO:
    # Whatever a native library prints must not mix with the answers.
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
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    raise SystemExit(main())
