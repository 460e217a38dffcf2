"""Loading a file in a process of its own first: some files end the process of their runtime."""

from pathlib import Path

from flyweight.errors import MeasureError
from flyweight.measuring.process import RequestError, WorkerProcess
from flyweight.runtimes.protocol import FLOAT32
from flyweight.runtimes.runtime_table import require_installed

_SECONDS = 600.0


def require_survival(path: Path, name: str, *, runtime: str, precision: str = FLOAT32) -> None:
    """Check that a runtime which may end its process does not do so where it loads a file.

    Nothing is started for a runtime of which that is not known. A file that the runtime refuses
    passes: to load it says why.

    Args:
        path: The file.
        name: What messages call it.
        runtime: Name of the runtime.
        precision: Precision of float operations.

    Raises:
        ConfigError: There is no such runtime, or it is not installed.
        MeasureError: The process ended, or did not answer within 600 s.
    """
    entry = require_installed(runtime)
    if not entry.may_end_process:
        return
    try:
        with WorkerProcess(name, timeout_seconds=_SECONDS) as child:
            child.ask("start", cores=[], runtime=runtime)
            child.ask("load", path=str(path), threads=1, spinning=False, precision=precision)
    except RequestError:
        return
    except MeasureError as error:
        raise MeasureError(
            f"{entry.title} must survive loading '{name}'. Received: "
            f"{str(error).partition('Received: ')[2]} Choose another runtime for this file."
        ) from error
