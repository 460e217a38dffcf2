"""What each operator of a file costs, as ONNX Runtime's own profiler tells it.

Times of operators come from inside one inference, where their inputs already lie in the layout that
they compute in. So they hold no share of what a file with one operator spends on entering that
layout and leaving it.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from flyweight.errors import MeasureError
from flyweight.measuring.environment import usable_cores
from flyweight.measuring.process import RequestError, WorkerProcess


@dataclass(frozen=True)
class OperatorTimes:
    """The operators of one file.

    Attributes:
        times_ms: Name of the operator in the optimised graph to its times, run by run.
        versions: Runtime name to version.
    """

    times_ms: dict[str, tuple[float, ...]]
    versions: dict[str, str]


def time_operators(
    path: str | os.PathLike[str],
    *,
    threads: int = 1,
    seconds: float = 1.0,
    runs: int = 15,
    timeout_seconds: float = 300.0,
) -> OperatorTimes:
    """Time every operator of an ONNX file, in a pinned process of its own.

    Args:
        path: A file whose inputs are tensors of numbers with static shapes.
        threads: Threads of one inference.
        seconds: How long to go on, at least.
        runs: Timed inferences, at least.
        timeout_seconds: How long the process may be silent before it is given up.

    Raises:
        MeasureError: The runtime is not installed or cannot run the file, or the process died.
    """
    file = Path(path)
    cores = list(usable_cores()[:threads])
    with WorkerProcess(file.name, timeout_seconds=timeout_seconds) as child:
        try:
            started = child.ask("start", cores=cores)
            arguments = {"threads": threads, "seconds": seconds, "runs": runs, "seed": 0}
            times = child.ask("operators", path=str(file), **arguments)
        except RequestError as error:
            raise MeasureError(
                f"'{file}' must be an ONNX file with static inputs that ONNX Runtime can run. "
                f"Received: {error}. Give another file, or install onnxruntime."
            ) from error
    return OperatorTimes({n: tuple(found) for n, found in times.items()}, started["versions"])
