"""Latency of exported files: one process each, interleaved blocks, medians with intervals."""

import os
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from flyweight.config.measuring import BenchConfig
from flyweight.errors import ConfigError, FileError, MeasureError, counted, nearest
from flyweight.measuring.bootstrap import median_interval
from flyweight.measuring.environment import (
    Environment,
    read_environment,
    usable_cores,
)
from flyweight.measuring.process import RequestError, WorkerProcess
from flyweight.processors import load_average
from flyweight.progress import Progress, progress_of, progress_over
from flyweight.runtimes.protocol import FLOAT32, NUMBER_TYPES
from flyweight.runtimes.runtime_table import DEFAULT_RUNTIME, require_installed, runtime_entry

DEFAULT = BenchConfig()
_MAX_BLOCK_RUNS = 250  # keeps blocks short, so that drift affects all rows equally
_STRETCH = 3  # how many times its seconds a slow row may take to reach the wanted runs
_WIDE_INTERVAL = 0.05  # half the width of the interval, as a fraction of the median
_BUSY_LOAD = 0.5  # load average per core
_KEPT_WAITING = 1.2  # wall time over processor time of all threads

_NOISY = "NOISY MACHINE"


@dataclass(frozen=True)
class Measurement:
    """One file on one runtime at one thread count.

    Attributes:
        name: The file's name, numbered where two files share one; with the runtime's name where
            several runtimes are measured.
        path: The file as it was given.
        threads: Threads of one inference.
        median_ms: Median wall time of one inference.
        p95_ms: 95th percentile of the wall times.
        min_ms: Smallest wall time.
        interval_ms: 95 % block-bootstrap interval of the median.
        cpu_ms: Processor time of one inference, summed over threads; median over blocks.
        load_ms: Wall time of loading and optimising the file.
        peak_bytes: Highest resident memory of the child; None where the system does not report it.
        model_bytes: The same less what the child held before it loaded the file.
        file_bytes: Size of the file, weights included.
        runs: Timed inferences.
        input_shapes: Input name to the measured shape.
        notes: Conditions that the reader must know, such as a noisy machine.
        environment: The machine and the software.
        session: Identity of the call of `measure` that made it.
        blocks_ms: Wall times by block.
        blocks_cpu_ms: Processor time of one inference, by block.
        runtime: Name of the runtime.
        precision: Precision of float operations.
    """

    name: str
    path: str
    threads: int
    median_ms: float
    p95_ms: float
    min_ms: float
    interval_ms: tuple[float, float]
    cpu_ms: float
    load_ms: float
    peak_bytes: int | None
    model_bytes: int | None
    file_bytes: int
    runs: int
    input_shapes: dict[str, tuple[int, ...]]
    notes: tuple[str, ...]
    environment: Environment
    session: str
    blocks_ms: tuple[tuple[float, ...], ...] = field(repr=False)
    blocks_cpu_ms: tuple[float, ...] = field(default=(), repr=False)
    runtime: str = DEFAULT_RUNTIME
    precision: str = FLOAT32

    @property
    def is_noisy(self) -> bool:
        """Whether the machine was too busy for small differences to mean anything."""
        return any(note.startswith(_NOISY) for note in self.notes)

    @property
    def waited(self) -> bool:
        """Whether other programs ran in so much of the wall time that it is not the file's own.

        A slice of time goes to another process as a whole, so that a file that takes a few
        milliseconds more may seem to take five times as long.
        """
        return self.median_ms > _KEPT_WAITING * self.cpu_ms


def measure(
    paths: Sequence[str | os.PathLike[str]],
    *,
    threads: Sequence[int] = (1, 2),
    runtime: str | Sequence[str] = DEFAULT_RUNTIME,
    config: BenchConfig = DEFAULT,
    precisions: Sequence[str] = (),
    progress: Progress | bool = False,
) -> tuple[Measurement, ...]:
    """Measure every file on every runtime at every thread count, interleaved.

    Each (file, runtime, thread count) has its own process for the whole measurement. The processes
    take turns in short blocks, in an order that rotates, so that a machine that slows down slows
    all of them equally.

    Args:
        paths: ONNX files; a file may be given twice. OpenVINO also reads its own `.xml`.
        threads: Thread counts.
        runtime: Name of a runtime, see `flyweight.runtimes.runtime_table`, or several names.
        config: The protocol.
        precisions: Precision of float operations in each file; empty for that of the protocol.
        progress: Receives the number of blocks that are done.

    Returns:
        One measurement per file, runtime and thread count, in the given order.

    Raises:
        ConfigError: There is no such runtime, or it is not installed.
        FileError: A file does not exist.
        MeasureError: The runtime cannot load a file, a file has inputs without static shapes, or
            its process ended.
    """
    names = [runtime] if isinstance(runtime, str) else list(dict.fromkeys(runtime))
    for name in names:
        require_installed(name)
    files = _check_files(paths)
    counts = _check_threads(threads)
    cores = usable_cores()
    load_before = load_average()
    with ExitStack() as stack:
        rows = []
        wanted = precisions or [config.precision] * len(files)
        for file, title, precision in zip(files, _distinct_names(files), wanted, strict=True):
            for name, count in product(names, counts):
                full = f"{title} on {name}" if len(names) > 1 else title
                label = f"{full} at {counted(count, 'thread')}"
                child = WorkerProcess(label, timeout_seconds=config.timeout_seconds)
                stack.enter_context(child)
                row = _Row(file, full, name, count, child, precision)
                _prepare(row, config, cores)
                rows.append(row)
        _take_turns(rows, config.blocks, progress_of(progress))
        for row in rows:
            row.memory = row.child.ask("memory")
    versions = {name: version for row in rows for name, version in row.versions.items()}
    environment = read_environment(versions, load_before=load_before, load_after=load_average())
    session = uuid.uuid4().hex
    return tuple(_summarise(row, config, environment, session) for row in rows)


@dataclass
class _Row:
    path: Path
    name: str
    runtime: str
    threads: int
    child: WorkerProcess
    precision: str = FLOAT32
    versions: dict[str, str] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    memory: dict[str, int | None] = field(default_factory=dict)
    load_ms: float = 0.0
    pinned: bool = False
    block_runs: int = 1
    wall_ms: list[tuple[float, ...]] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)


def _check_files(paths: Sequence[str | os.PathLike[str]]) -> list[Path]:
    files = [Path(path) for path in paths]
    if not files:
        raise MeasureError("At least one file must be given to measure. Received: none.")
    for file in files:
        if not file.is_file():
            what = "a folder" if file.is_dir() else "nothing of that name"
            raise FileError(
                f"'{file}' must be an ONNX file to measure. Received: {what}. "
                "Export a model first or correct the path."
            )
    return files


def _check_threads(threads: Sequence[int]) -> list[int]:
    counts = list(dict.fromkeys(threads))
    if not counts or min(counts) < 1:
        raise MeasureError(
            f"Thread counts must be whole numbers from 1. Received: {list(threads)}. "
            "Give for example --threads 1,2."
        )
    return counts


def _distinct_names(files: list[Path]) -> list[str]:
    names = [file.name for file in files]
    if len({*files}) == len(files) and len({*names}) < len(names):
        names = [str(file) for file in files]
    return [
        f"{name} ({names[:index].count(name) + 1})" if names.count(name) > 1 else name
        for index, name in enumerate(names)
    ]


def _prepare(row: _Row, config: BenchConfig, cores: tuple[int, ...]) -> None:
    """Start, load and warm up one row."""
    wanted = cores[: row.threads] if config.pin else ()
    try:
        started = row.child.ask("start", cores=list(wanted), runtime=row.runtime)
    except RequestError as error:
        raise MeasureError(str(error)) from error
    row.versions, row.pinned = started["versions"], started["pinned"]
    settings = {
        "threads": row.threads,
        "spinning": config.spinning,
        "precision": row.precision,
    }
    try:
        loaded = row.child.ask("load", path=str(row.path), **settings)
    except RequestError as error:
        if error.kind == ConfigError.__name__:
            raise ConfigError(str(error)) from error
        raise MeasureError(
            f"'{row.path}' must be an ONNX file that {runtime_entry(row.runtime).title} can load. "
            f"Received: {error}. Export it again or give another file."
        ) from error
    row.load_ms = loaded["load_ms"]
    row.shapes = _input_shapes(row.path, loaded["inputs"], config)
    try:
        ready = row.child.ask("prepare", shapes=row.shapes, warmup=config.warmup, seed=config.seed)
    except RequestError as error:
        raise MeasureError(
            f"'{row.path}' must run on inputs of shape {row.shapes}. Received: {error}. "
            "Give shapes it accepts with --shape."
        ) from error
    row.block_runs = _runs_per_block(ready["estimate_ms"], config)


def _input_shapes(
    path: Path, inputs: list[dict[str, Any]], config: BenchConfig
) -> dict[str, tuple[int, ...]]:
    given = dict(config.shapes)
    if "" in given and len(inputs) == 1:
        given[inputs[0]["name"]] = given.pop("")
    known = [item["name"] for item in inputs]
    for name in given:
        if name not in known:
            raise MeasureError(
                f"--shape must name an input of '{path}'. Received: '{name}'. "
                f"{nearest(name, known)}"
            )
    shapes = {}
    for item in inputs:
        shape = given.get(item["name"], tuple(item["shape"]))
        if not all(isinstance(size, int) and size > 0 for size in shape):
            shown = "x".join("?" if size is None else str(size) for size in shape)
            raise MeasureError(
                f"Input '{item['name']}' of '{path}' must have a static shape to be measured. "
                f"Received: {shown}. Give it with --shape {item['name']}=1x3x320x320 (your sizes)."
            )
        if item["type"] not in NUMBER_TYPES:
            raise MeasureError(
                f"Input '{item['name']}' of '{path}' must be a tensor of numbers. "
                f"Received: {item['type']}. Export the model with tensor inputs."
            )
        shapes[item["name"]] = tuple(shape)
    return shapes


def _runs_per_block(estimate_ms: float, config: BenchConfig) -> int:
    affordable = config.seconds * 1e3 / config.blocks / max(estimate_ms, 1e-6)
    wanted = config.runs / config.blocks
    runs = max(affordable, min(wanted, _STRETCH * affordable))
    return max(1, min(round(runs), _MAX_BLOCK_RUNS))


def _take_turns(rows: list[_Row], blocks: int, progress: Progress) -> None:
    # Rows that will be compared follow each other: same thread count, different files.
    order = sorted(rows, key=lambda row: row.threads)
    turns = [
        row
        for turn in range(blocks)
        for row in order[turn % len(order) :] + order[: turn % len(order)]
    ]
    for row in progress_over(turns, "measuring", progress):
        try:
            timed = row.child.ask("block", runs=row.block_runs)
        except RequestError as error:
            raise MeasureError(
                f"'{row.path}' must run repeatedly. Received: {error}. Export it again."
            ) from error
        row.wall_ms.append(tuple(timed["wall_ms"]))
        row.cpu_ms.append(timed["cpu_ms"])


def _summarise(
    row: _Row, config: BenchConfig, environment: Environment, session: str
) -> Measurement:
    times = np.concatenate([np.asarray(block) for block in row.wall_ms])
    interval = median_interval(row.wall_ms, seed=config.seed)
    peak, baseline = row.memory["peak"], row.memory["baseline"]
    return Measurement(
        name=row.name,
        path=str(row.path),
        threads=row.threads,
        median_ms=float(np.median(times)),
        p95_ms=float(np.percentile(times, 95)),
        min_ms=float(times.min()),
        interval_ms=interval,
        cpu_ms=float(np.median(row.cpu_ms)),
        load_ms=row.load_ms,
        peak_bytes=peak,
        model_bytes=None if peak is None or baseline is None else max(0, peak - baseline),
        file_bytes=_size_bytes(row.path),
        runs=len(times),
        input_shapes=row.shapes,
        notes=_notes(row, config, environment, interval),
        environment=environment,
        session=session,
        blocks_ms=tuple(row.wall_ms),
        blocks_cpu_ms=tuple(row.cpu_ms),
        runtime=row.runtime,
        precision=row.precision,
    )


def _size_bytes(path: Path) -> int:
    # OpenVINO's own format keeps the weights in a second file.
    files = [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _notes(
    row: _Row, config: BenchConfig, environment: Environment, interval: tuple[float, float]
) -> tuple[str, ...]:
    median = float(np.median(np.concatenate([np.asarray(block) for block in row.wall_ms])))
    spread = (interval[1] - interval[0]) / 2 / median
    waiting = median > _KEPT_WAITING * float(np.median(row.cpu_ms))
    load = environment.load_before or 0.0
    runs = sum(len(block) for block in row.wall_ms)
    cores = counted(environment.cores, "core")
    conditions = [
        (row.threads > environment.cores, f"{counted(row.threads, 'thread')} on {cores}"),
        (config.pin and not row.pinned, "not pinned to cores: the system does not allow it"),
        (spread > _WIDE_INTERVAL, f"{_NOISY}: the median is uncertain by {spread:.0%}"),
        (
            load > _BUSY_LOAD * environment.cores,
            f"{_NOISY}: load average {load:g} before measuring on {cores}",
        ),
        (waiting, f"{_NOISY}: the process often had to wait for its core"),
        (runs < config.runs, f"only {runs} of {config.runs} runs fitted into {config.seconds:g} s"),
    ]
    return tuple(text for holds, text in conditions if holds)
