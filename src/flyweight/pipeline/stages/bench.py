"""Measuring stage: latency, memory and size of the exported files of a chain."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from flyweight.config.measuring import BenchConfig
from flyweight.config.settings import Config
from flyweight.digests import digest_of_value
from flyweight.errors import FileError, counted
from flyweight.files import write_text
from flyweight.measuring.environment import hardware
from flyweight.measuring.measure import Measurement, measure
from flyweight.pipeline.results import Benchmarked
from flyweight.pipeline.stage import Inputs, Stage
from flyweight.untrusted.failures import refusing
from flyweight.untrusted.file_bytes import read_bytes
from flyweight.workspace import Workspace

MEASUREMENTS = "measurements.json"
_ROWS = TypeAdapter(tuple[Measurement, ...])


def _run(inputs: Inputs, settings: Config, workspace: Workspace) -> Benchmarked:
    files = tuple(inputs.results["export"].files.values())
    protocol = BenchConfig(seconds=settings.bench.seconds)
    rows = measure(
        files,
        threads=settings.bench.threads,
        runtime=settings.bench.runtime,
        config=protocol,
        progress=inputs.progress,
    )
    for row in rows:
        for note in row.notes:
            inputs.progress.note(f"note: {row.name}, {counted(row.threads, 'thread')}: {note}")
    save_measurements(rows, workspace.folder / MEASUREMENTS)
    return Benchmarked(rows)


def save_measurements(rows: Sequence[Measurement], path: Path) -> None:
    """Write measurements as JSON.

    Raises:
        FileError: The file cannot be written.
    """
    write_text(path, _ROWS.dump_json(tuple(rows), indent=1).decode())


def _read(inputs: Inputs, settings: Config, workspace: Workspace) -> Benchmarked:
    path = workspace.folder / MEASUREMENTS
    must = "Measurements must be as they were written."
    with refusing(FileError, must, f"'{path}'", "Start again with --fresh."):
        return Benchmarked(_ROWS.validate_json(read_bytes(path)))


def _surroundings(folder: Path) -> Mapping[str, Any]:
    # A measurement holds for the machine that it was made on.
    return {"machine": hardware()}


BENCH = Stage(
    name="bench",
    run=_run,
    read=_read,
    settings=("bench",),
    needs=("export.dense", "export.pruned"),
    surroundings=_surroundings,
    digests=lambda result: {
        "measurements": digest_of_value(_ROWS.dump_python(result.rows, mode="json"))
    },
    makes=lambda _: (MEASUREMENTS,),
)
