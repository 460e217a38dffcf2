"""Operators that a runtime executes for a file, with the time of each.

The runtime's own profiler gives the times from inside one inference, where inputs already have the
layout that the operator computes in. So they do not include the change of layout that a file with
one operator would spend at its start and end.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from flyweight.errors import ConfigError, MeasureError
from flyweight.measuring.environment import usable_cores
from flyweight.measuring.process import RequestError, WorkerProcess
from flyweight.runtimes.protocol import FLOAT32, ExecutedOperator
from flyweight.runtimes.runtime_table import DEFAULT_RUNTIME, require_installed


@dataclass(frozen=True)
class OperatorTimes:
    """The operators of one file.

    Attributes:
        operators: The operators that the runtime executes, each with its times run by run.
        versions: Runtime name to version.
    """

    operators: tuple[ExecutedOperator, ...]
    versions: dict[str, str]

    @property
    def times_ms(self) -> dict[str, tuple[float, ...]]:
        """Name of the operator to its times, run by run, in milliseconds."""
        return {operator.name: operator.times_ms for operator in self.operators}


def time_operators(
    path: str | os.PathLike[str],
    *,
    threads: int = 1,
    seconds: float = 1.0,
    runs: int = 15,
    timeout_seconds: float = 300.0,
    runtime: str = DEFAULT_RUNTIME,
    precision: str = FLOAT32,
) -> OperatorTimes:
    """Execute a file in a pinned process of its own and time every operator.

    Args:
        path: A file whose inputs are tensors of numbers with static shapes.
        threads: Threads of one inference.
        seconds: How long to repeat, at least.
        runs: Timed inferences, at least.
        timeout_seconds: How long the process may take for an answer before it is killed.
        runtime: Name of the runtime, see `flyweight.runtimes.runtime_table`.
        precision: Precision of float operations.

    Raises:
        ConfigError: There is no such runtime, it is not installed, or it does not support the
            precision on this machine.
        MeasureError: The runtime cannot run the file, or the process ended.
    """
    title = require_installed(runtime).title
    file = Path(path)
    cores = list(usable_cores()[:threads])
    settings = {"threads": threads, "precision": precision}
    with WorkerProcess(file.name, timeout_seconds=timeout_seconds) as child:
        try:
            started = child.ask("start", cores=cores, runtime=runtime)
            arguments = {"settings": settings, "seconds": seconds, "runs": runs, "seed": 0}
            found = child.ask("operators", path=str(file), **arguments)
        except RequestError as error:
            if error.kind == ConfigError.__name__:
                raise ConfigError(str(error)) from error
            raise MeasureError(
                f"'{file}' must be an ONNX file with static inputs that {title} can run. "
                f"Received: {error}. Give another file."
            ) from error
    operators = tuple(
        ExecutedOperator(
            **{**values, "nodes": tuple(values["nodes"]), "times_ms": tuple(values["times_ms"])}
        )
        for values in found
    )
    return OperatorTimes(operators, started["versions"])
