"""Exporting, measuring and reporting from the command line."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flyweight import on_demand, pipeline
from flyweight.cli.console import show, show_json
from flyweight.config.cut_options import CutOptions
from flyweight.config.measuring import BenchConfig
from flyweight.errors import ConfigError
from flyweight.pipeline.model_source import ModelSource
from flyweight.pipeline.preflight import require_end
from flyweight.report.markdown import comparison_table
from flyweight.runtimes.runtime_table import DEFAULT_RUNTIME, require_installed

# Loaded when files are measured: the other commands of this module need no numpy.
_MEASURE = "flyweight.measuring.measure:measure"
_RECORDS = "flyweight.measuring.measurement_text:to_records"
_TEXT = "flyweight.measuring.measurement_text:to_text"


@dataclass(frozen=True)
class Protocol:
    """What the command line says about measuring."""

    seconds: float
    runs: int
    shapes: tuple[str, ...]
    runtime: str = DEFAULT_RUNTIME


def export(
    source: ModelSource,
    ratios: CutOptions,
    output_dir: Path,
    *,
    end: str,
    runtime: str = DEFAULT_RUNTIME,
    as_json: bool,
) -> None:
    """Write a checkpoint as ONNX."""
    require_end(end or "raw")
    require_installed(runtime)
    source.find()
    result = pipeline.export(
        source, output_dir, cut=ratios, end=end, runtime=runtime, progress=True
    )
    if as_json:
        show_json(vars(result))
        return
    worst = max(result.max_error.values(), default=0.0)
    show(f"saved {result.path} ({result.size_bytes / 2**20:.2f} MiB), description {result.sidecar}")
    show(f"largest relative error against PyTorch {worst:.1e}")


def bench(files: Sequence[Path], threads: str, protocol: Protocol, *, as_json: bool) -> None:
    """Measure exported files."""
    config = BenchConfig(
        seconds=protocol.seconds, runs=protocol.runs, shapes=_shapes(protocol.shapes)
    )
    runtimes = [name.strip() for name in protocol.runtime.split(",")]
    rows = on_demand.load(_MEASURE)(
        files, threads=_counts(threads), runtime=runtimes, config=config, progress=True
    )
    if as_json:
        show_json(on_demand.load(_RECORDS)(rows))
    else:
        show(on_demand.load(_TEXT)(rows))


def _counts(text: str) -> list[int]:
    parts = text.replace(",", " ").split()
    if not parts or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise ConfigError(
            f"--threads must list whole numbers above 0. Received '{text}'. Write: --threads 1,2"
        )
    return [int(part) for part in parts]


def one_count(text: str) -> int:
    """Return the thread count of a table of layers.

    Raises:
        ConfigError: It is no number, or there are several.
    """
    counts = _counts(text)
    if len(counts) > 1:
        raise ConfigError(
            "A table of layers must be of one thread count. Received "
            f"--threads {text}. Make one table for each."
        )
    return counts[0]


def _shapes(texts: Sequence[str]) -> Mapping[str, tuple[int, ...]]:
    shapes = {}
    for text in texts:
        name, _, sizes = text.rpartition("=")
        parts = sizes.lower().split("x")
        if not all(part.isdigit() and int(part) > 0 for part in parts):
            raise ConfigError(
                f"--shape must read NAME=SIZExSIZE. Received '{text}'. Write: images=1x3x320x320"
            )
        shapes[name] = tuple(int(part) for part in parts)
    return shapes


def report(folder: Path, *, as_json: bool) -> None:
    """Render a run folder's report again, with its scan where it has one."""
    found = pipeline.report(folder, progress=True)
    if as_json:
        show(found.report.to_json())
        return
    show(comparison_table(found.report))
    show("wrote " + ", ".join(map(str, found.files)))
