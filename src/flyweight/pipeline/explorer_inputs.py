"""Inputs of the plan explorer: the commands that it shows, and the scan of a run folder."""

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import nn

from flyweight.config.preprocessing import Preprocessing
from flyweight.config.reading import known_configs, load_config
from flyweight.config.scanning import SCANS
from flyweight.config.settings import Config
from flyweight.digests import digest_of_images
from flyweight.engine.run import BEST
from flyweight.errors import ConfigError, FlyweightError
from flyweight.graph import ModelGraph
from flyweight.measuring.latency_prices import LatencyPrices
from flyweight.measuring.latency_table import read_table
from flyweight.pipeline.belonging import dense_in, require_scan, uses_of
from flyweight.pipeline.inputs import open_checkpoint, open_val
from flyweight.pipeline.model_source import ModelSource
from flyweight.pipeline.network_plans import trace_model
from flyweight.pipeline.results import Scanned
from flyweight.pipeline.stages.prune import PRUNE
from flyweight.pipeline.stages.train import TRAIN
from flyweight.pipeline.version_0_1_0 import digest_as_recorded
from flyweight.progress import Progress
from flyweight.report.rows import Report
from flyweight.sensitivity import Sensitivity, read
from flyweight.sensitivity.explorer_values import Cutting, explorer
from flyweight.sensitivity.page import Subject, write_page
from flyweight.workspace import Say
from flyweight.zoo.sources.old_names import old_names


@dataclass(frozen=True)
class ConfigSource:
    """How a config was named on the command line.

    Attributes:
        config: A built-in name or a file.
        overrides: `key=value`, as after `-o`.
    """

    config: str
    overrides: tuple[str, ...] = ()


def cutting_of(
    source: ConfigSource,
    config: Config,
    curves: Sensitivity,
    files: tuple[Path, Path],
    graph: ModelGraph,
    latency_table: Path | None = None,
    *,
    foreign: bool = False,
) -> Cutting:
    """Return how `flyweight prune` cuts by these curves, and its command line.

    Args:
        source: How the config was named.
        config: The config.
        curves: The scan.
        files: The files of the weights and of the curves.
        graph: The network's graph.
        latency_table: File of the network's layers, to limit latency by.
        foreign: The curves are used although they are of something else.
    """
    prices = None if latency_table is None else LatencyPrices.of(graph, read_table(latency_table))
    weights, scan = files
    others = [text for text in source.overrides if not text.startswith("weights=")]
    pairs = [*others, f"weights={weights}"]
    words = [
        "flyweight",
        "prune",
        "-c",
        source.config,
        *(w for text in pairs for w in ("-o", text)),
    ]
    if isinstance(curves.criterion, str) and curves.criterion != config.prune.criterion:
        words += ["--prune-criterion", curves.criterion]
    by_scan = ["--sensitivities", str(scan), *(["--foreign-scan"] if foreign else [])]
    timed: dict[str, Any] = {}
    if prices is not None:
        # The page makes plans with widths that the runtime is fast with; its commands do, too.
        words += ["-o", f"prune.round_to={prices.multiple_of(config.prune.round_to)}"]
        option = shlex.join(["--latency-table", str(latency_table)])
        timed = {"latency": prices, "latency_option": option}
    return Cutting(
        round_to=config.prune.round_to,
        inexact=False,
        aliases=old_names(graph.tensors),
        command=shlex.join([*words, *by_scan]),
        ratios_command=shlex.join(words),
        **timed,
    )


def write_scan_page(
    found: Scanned,
    source: ModelSource,
    page: Path,
    command: str,
    latency_table: Path | None = None,
    *,
    foreign: bool = False,
) -> None:
    """Write the plan explorer and the curves of a scan as one HTML page.

    Args:
        found: The scan, with the network's graph.
        source: The network, and how its config was named.
        page: The file to write.
        command: The command that writes the page again; the page shows it.
        latency_table: File of the network's layers, to limit latency by.
        foreign: The scan is used although it is of something else; the page's commands say so.

    Raises:
        FlyweightError: The source has no config, the table does not fit, or the curves do not.
    """
    if source.named is None or found.graph is None:
        raise ConfigError("The page of a scan must have a network. Received none. Add: -c CONFIG")
    (label, config), (_, weights) = source.named, source.find()
    named, places = ConfigSource(source.config, source.overrides), (weights, found.file)
    cutting = cutting_of(
        named, config, found.curves, places, found.graph, latency_table, foreign=foreign
    )
    subject = Subject(label, command)
    write_page(found.curves, page, found.graph, cutting=cutting, subject=subject)


def with_explorer(
    report: Report,
    folder: Path,
    *,
    network: tuple[nn.Module, Preprocessing] | None = None,
    data: Callable[[Mapping[str, str]], str] = lambda _: "",
    foreign: bool = False,
    say: Say,
) -> Report:
    """Return the report with the plan explorer of the folder's scan, where it has one.

    Of several scans the first that can be shown is: one of the folder's dense network.

    Args:
        report: The report of the run in `folder`.
        folder: Has `sens*.json` and the dense network's checkpoint.
        network: The dense network and its preprocessing; by default those of the checkpoint.
        data: Returns the digest of the validation split, given what a scan recorded; "" where it
            is not known.
        foreign: Show a scan although it is of something else.
        say: Receives a line for every scan that cannot be shown, with the reason.
    """
    for scan in sorted(folder.glob(SCANS)):
        try:
            curves = read(scan)
            weights = dense_in(folder) or folder / TRAIN.folder / BEST
            model, preprocessing = network or _opened(weights)
            graph = trace_model(model.eval(), preprocessing)
            uses = uses_of(graph, model, preprocessing, data(curves.made_from))
            require_scan(curves, scan, uses, foreign=foreign, say=say)
            cutting = _cutting_in(report, curves, (weights, scan), graph, foreign=foreign)
            shown = explorer(curves, graph, cutting)
        except FlyweightError as error:
            say(f"note: '{scan}' is not shown: {error}")
        else:
            return report.model_copy(update={"explorer": shown})
    return report


def with_explorer_of_folder(
    report: Report, folder: Path, config: Config | None, *, foreign: bool, progress: Progress
) -> Report:
    """Return the report with the plan explorer of a run folder, for the command `report`.

    A scan must be of the validation split of the config, or else of the one that the run recorded.

    Args:
        report: The report of the run in `folder`.
        folder: As for `with_explorer`.
        config: Has the data that the report is about, where it was given.
        foreign: Show a scan although it is of something else.
        progress: Receives a line for every scan that cannot be shown, and progress.
    """

    def digest(scanned: Mapping[str, str]) -> str:
        recorded = scanned.get("data", "")
        if config is None:
            # Version 0.1.0 had digests of another kind, which only the data can be compared with.
            return recorded_data(folder) if "preprocessing" in scanned else ""
        if not recorded:
            return ""
        images = open_val(config)
        return digest_as_recorded(recorded, images, digest_of_images(images, progress=progress))

    return with_explorer(report, folder, data=digest, foreign=foreign, say=progress.note)


def recorded_data(folder: Path) -> str:
    """Return the digest of the validation split that the run in a folder recorded, "" for none."""
    for stage in (TRAIN, PRUNE):
        for in_chain in (True, False):
            note = stage.workspace(folder, in_chain=in_chain).read()
            found = None if note is None else (note.made_from or {}).get("val images")
            if found:
                return str(found)
    return ""


def _opened(path: Path) -> tuple[nn.Module, Preprocessing]:
    loaded = open_checkpoint(path)
    return loaded.model, loaded.preprocessing


def _cutting_in(
    report: Report,
    curves: Sensitivity,
    files: tuple[Path, Path],
    graph: ModelGraph,
    *,
    foreign: bool,
) -> Cutting:
    """Return how the chain of a report cuts; another command's report names no command."""
    source = _source_of(report)
    if source is None:
        return Cutting(inexact=False, aliases=old_names(graph.tensors))
    config = load_config(source.config, source.overrides)[1]
    return cutting_of(source, config, curves, files, graph, foreign=foreign)


def _source_of(report: Report) -> ConfigSource | None:
    """Return the config of the chain that made a report; None if another command made it."""
    try:
        parts = shlex.split(report.command)
    except ValueError:
        return None
    if parts[:2] != ["flyweight", "demo"]:
        return None
    # Without -c, the default of that version of the demo, whose name is the subject of the report.
    config = report.subject if report.subject in known_configs() else "demo_digits"
    for part, following in pairwise([*parts, ""]):
        if part in ("-c", "--config"):
            config = following
        elif part.startswith("--config="):
            config = part.partition("=")[2]
    return ConfigSource(config, tuple(text for text in parts if re.match(r"[\w.]+=", text)))
