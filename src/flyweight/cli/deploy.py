"""`export`, `bench` and `report`."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flyweight.cli.console import say, show, show_json
from flyweight.errors import ConfigError


@dataclass(frozen=True)
class Source:
    """Where a checkpoint is to be found."""

    config: str
    overrides: tuple[str, ...]
    weights: str

    def find(self) -> tuple[str, Path]:
        """Return a name for the model and the path of its checkpoint.

        Raises:
            ConfigError: Neither a config nor weights are given, or nothing is there.
        """
        from flyweight.cli.train import checkpoint_path
        from flyweight.recipe.config import load_config
        from flyweight.recipe.session import weights_path

        if self.config:
            label, config = load_config(self.config, self.overrides)
            return label, checkpoint_path(label, config, self.weights)
        given = self.weights or dict(pair.split("=", 1) for pair in self.overrides).get("weights")
        if not given:
            raise ConfigError(
                "A checkpoint must be given. Received neither -c nor -o weights=. "
                "Add: -o weights=CHECKPOINT"
            )
        path = weights_path(given)
        return path.stem, path


@dataclass(frozen=True)
class Protocol:
    """What the command line says about measuring."""

    seconds: float
    runs: int
    shapes: tuple[str, ...]


def export(
    source: Source, cut: tuple[str, str], output_dir: Path, *, end: str, as_json: bool
) -> None:
    """Write a checkpoint as ONNX."""
    from flyweight.cli.prune import cut_of
    from flyweight.recipe.config import load_config
    from flyweight.recipe.cut import require_same_cut
    from flyweight.recipe.session import open_checkpoint
    from flyweight.recipe.stages import export_model

    name, path = source.find()
    loaded = open_checkpoint(path)
    if any(cut) and source.config:
        _, config = load_config(source.config, source.overrides)
        require_same_cut(loaded.model, config, cut_of(config, *cut))
    target = output_dir / name / "model.onnx"
    say(f"exporting {path}")
    result = export_model(loaded, target, end=end, name=name)
    if as_json:
        show_json({**vars(result), "max_error": dict(result.max_error)})
        return
    worst = max(result.max_error.values(), default=0.0)
    show(f"saved {result.path} ({result.size_bytes / 2**20:.2f} MiB), description {result.sidecar}")
    show(f"largest relative error against PyTorch {worst:.1e}")


def bench(files: Sequence[Path], threads: str, protocol: Protocol, *, as_json: bool) -> None:
    """Measure exported files."""
    from flyweight.bench.config import BenchConfig
    from flyweight.bench.measure import measure
    from flyweight.bench.table import to_records, to_text

    config = BenchConfig(
        seconds=protocol.seconds, runs=protocol.runs, shapes=_shapes(protocol.shapes)
    )
    rows = measure(files, threads=_counts(threads), config=config, progress=_progress)
    if as_json:
        show_json(to_records(rows))
    else:
        show(to_text(rows))


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\rmeasuring {done}/{total}" + ("\n" if done == total else ""))
        sys.stderr.flush()


def _counts(text: str) -> list[int]:
    parts = text.replace(",", " ").split()
    if not parts or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise ConfigError(
            f"--threads must list whole numbers above 0. Received '{text}'. Write: --threads 1,2"
        )
    return [int(part) for part in parts]


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


def report(folder: Path) -> None:
    """Render a run folder's report again."""
    from flyweight.report.collect import read_report, render_folder
    from flyweight.report.markdown import comparison_table

    paths = render_folder(folder)
    show(comparison_table(read_report(folder)))
    show("wrote " + ", ".join(str(path) for path in paths))
