"""`export`, `bench` and `report`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from flyweight.cli.console import say, show, show_json
from flyweight.errors import ConfigError, DataError, counted

if TYPE_CHECKING:
    from torch import Tensor

    from flyweight.config.cut_options import CutOptions
    from flyweight.config.preprocessing import Preprocessing
    from flyweight.config.settings import Config
    from flyweight.pipeline.inputs import Loaded


@dataclass(frozen=True)
class Source:
    """Where a model is to be found."""

    config: str
    overrides: tuple[str, ...]
    weights: str

    @cached_property
    def named(self) -> "tuple[str, Config] | None":
        """The config's name and the config, if one is given.

        Raises:
            ConfigError: It cannot be meant.
        """
        from flyweight.config.reading import load_config

        return load_config(self.config, self.overrides) if self.config else None

    def find(self) -> tuple[str, Path]:
        """Return a name for the model and the path of its checkpoint.

        Raises:
            ConfigError: Neither a config nor weights are given.
            CheckpointError: There is no such file.
        """
        from flyweight.pipeline.preflight import checkpoint_path, weights_path

        if self.named is not None:
            label, config = self.named
            return label, checkpoint_path(label, config, self.weights)
        alone = self._weights_alone()
        given = self.weights or alone
        if not given:
            raise ConfigError(
                "A checkpoint must be given. Received neither -c nor -o weights=. "
                "Add: -o weights=CHECKPOINT"
            )
        path = weights_path(given)
        return path.stem, path

    def open(self) -> tuple[str, Path, "Loaded"]:
        """Return the name, the path and the model; what `-o` tells holds over what was saved.

        Raises:
            ConfigError: As `find`.
            CheckpointError: The file is damaged, or of another network than the config's.
        """
        name, path = self.find()

        from flyweight.config.reading import touched
        from flyweight.pipeline.inputs import (
            open_checkpoint,
            task_of,
            with_overrides,
        )

        loaded = open_checkpoint(path, self.named[1] if self.named else None)
        if self.named is None:
            return name, path, loaded
        told = touched(self.overrides)
        config = self.named[1]
        wanted = with_overrides(config, loaded.preprocessing, told)
        loaded = replace(loaded, preprocessing=wanted.preprocessing)
        if loaded.task.name in told:
            task = task_of(loaded.model, loaded.task.labels, config)
            loaded = replace(loaded, task=task)
        return name, path, loaded

    def images(self, preprocessing: "Preprocessing") -> "tuple[Tensor, ...]":
        """Return prepared images of the config's data, where there are any, and say so."""
        if self.named is None:
            say("comparing on random inputs; -c CONFIG compares on images of its data, too")
            return ()
        from flyweight.data.loading import open_set
        from flyweight.pipeline.stage_work import images_to_compare

        try:
            found_set = open_set(self.named[1].data, "val")
            found = images_to_compare(found_set, preprocessing)
        except DataError as error:
            say(f"comparing on random inputs, without images: {error}")
            return ()
        shown = f"{counted(len(found), 'image')} of {found_set.name}"
        say(f"comparing on {shown} and on random inputs")
        return found

    def _weights_alone(self) -> str:
        from flyweight.config.reading import touched

        others = touched(self.overrides) - {"weights"}
        if others:
            raise ConfigError(
                f"Without -c, -o can say weights= alone. Received '{min(others)}='. Add: -c CONFIG"
            )
        return next((text.partition("=")[2] for text in reversed(self.overrides)), "")


@dataclass(frozen=True)
class Protocol:
    """What the command line says about measuring."""

    seconds: float
    runs: int
    shapes: tuple[str, ...]
    runtime: str = "onnxruntime"


def export(
    source: Source,
    ratios: "CutOptions",
    output_dir: Path,
    *,
    end: str,
    runtime: str = "onnxruntime",
    as_json: bool,
) -> None:
    """Write a checkpoint as ONNX."""
    from flyweight.pipeline.preflight import require_end
    from flyweight.runtimes.runtime_table import require_installed

    require_end(end or "raw")
    require_installed(runtime)
    source.find()

    from flyweight.config.pruning import PruneConfig
    from flyweight.pipeline.network_plans import with_cut
    from flyweight.pipeline.networks import own_builder
    from flyweight.pipeline.stage_work import export_model

    default = source.named[1].prune if source.named else PruneConfig()
    cut = ratios.cut(default) if ratios.given else None
    name, path, loaded = source.open()
    if cut is not None:
        build = own_builder(source.named[1]) if source.named else None
        model = with_cut(loaded.model, loaded.checkpoint, loaded.preprocessing, cut, build)
        loaded = replace(loaded, model=model)
        if not loaded.checkpoint.plans:
            say(f"note: {path} is not pruned; it was cut now")
    say(f"exporting {path}")
    images = source.images(loaded.preprocessing)
    target = output_dir / name / "model.onnx"
    result = export_model(loaded, target, end=end, name=name, images=images, runtime=runtime)
    if as_json:
        show_json(vars(result))
        return
    worst = max(result.max_error.values(), default=0.0)
    show(f"saved {result.path} ({result.size_bytes / 2**20:.2f} MiB), description {result.sidecar}")
    show(f"largest relative error against PyTorch {worst:.1e}")


def bench(files: Sequence[Path], threads: str, protocol: Protocol, *, as_json: bool) -> None:
    """Measure exported files."""
    from flyweight.config.measuring import BenchConfig
    from flyweight.measuring.measure import measure
    from flyweight.measuring.measurement_text import to_records, to_text

    config = BenchConfig(
        seconds=protocol.seconds, runs=protocol.runs, shapes=_shapes(protocol.shapes)
    )
    runtimes = [name.strip() for name in protocol.runtime.split(",")]
    rows = measure(files, threads=_counts(threads), runtime=runtimes, config=config, progress=True)
    if as_json:
        show_json(to_records(rows))
    else:
        show(to_text(rows))


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
    from flyweight.report.collect import read_report
    from flyweight.report.markdown import comparison_table
    from flyweight.report.render import render_all

    found = read_report(folder)
    if any(folder.glob("sens*.json")):
        from flyweight.pipeline.explorer_inputs import with_explorer

        found = with_explorer(found, folder, say=say)
    paths = render_all(found, folder)
    if as_json:
        show(found.to_json())
        return
    show(comparison_table(found))
    show("wrote " + ", ".join(str(path) for path in paths))
