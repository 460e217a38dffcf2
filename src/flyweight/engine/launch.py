"""Launch of a training in one process or several.

A file of its own, because lightning takes seconds to import: `fit` loads it when a run starts.
"""

import multiprocessing
import re
from functools import partial

from lightning.fabric import Fabric
from torch.multiprocessing.spawn import ProcessRaisedException

import flyweight.errors
from flyweight.engine.loop import train
from flyweight.engine.run import Run
from flyweight.errors import FlyweightError

_PRECISION = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


def launch(run: Run, devices: int) -> None:
    """Train on so many devices, each with a process of its own if there are several.

    Raises:
        FlyweightError: As `fit` does; also those that were raised in another process.
    """
    fabric = Fabric(
        accelerator=run.config.accelerator,
        devices=devices,
        strategy="auto" if devices == 1 else "ddp_spawn",
        precision=_PRECISION[run.config.precision],  # type: ignore[arg-type]
    )
    try:
        fabric.launch(partial(train, run=run))
    except KeyboardInterrupt:
        # A signal may have come to this process alone; the others would train on.
        for child in multiprocessing.active_children():
            child.terminate()
        raise
    except ProcessRaisedException as error:
        raise own_error(error) from error


def own_error(error: Exception) -> Exception:
    """Return the `FlyweightError` that ended another process, or `error` itself.

    Only the text of the other process's traceback arrives here.
    """
    found = re.search(r"^flyweight\.errors\.(\w+): (.*)", str(error), re.MULTILINE)
    kind = vars(flyweight.errors).get(found[1]) if found else None
    if found and isinstance(kind, type) and issubclass(kind, FlyweightError):
        return kind(found[2])
    return error
