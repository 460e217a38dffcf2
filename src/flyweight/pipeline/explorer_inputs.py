"""The plan explorer of a config's network: what to type, and a run folder's own scan."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flyweight.config.reading import load_config
from flyweight.config.scanning import SCANS
from flyweight.config.settings import Config
from flyweight.engine.run import BEST
from flyweight.errors import ConfigError, FlyweightError
from flyweight.graph import ModelGraph
from flyweight.measuring.latency_prices import LatencyPrices
from flyweight.measuring.latency_table import read_table
from flyweight.pipeline.inputs import open_checkpoint
from flyweight.pipeline.model_source import ModelSource
from flyweight.pipeline.network_plans import trace_model
from flyweight.pipeline.results import Scanned
from flyweight.report.rows import Report
from flyweight.sensitivity import Sensitivity, read
from flyweight.sensitivity.explorer_values import Cutting, explorer
from flyweight.sensitivity.page import Subject, write_page
from flyweight.workspace import Say
from flyweight.zoo.sources.old_names import old_names


@dataclass(frozen=True)
class ConfigSource:
    """How the config was named on the command line.

    Attributes:
        config: A built-in name or a file.
        overrides: `key=value`.
    """

    config: str
    overrides: tuple[str, ...] = ()


def cutting_of(
    told: ConfigSource,
    config: Config,
    curves: Sensitivity,
    files: tuple[Path, Path],
    graph: ModelGraph,
    latency_table: Path | None = None,
) -> Cutting:
    """Return how `flyweight prune` cuts by these curves, and its command line.

    Args:
        told: How the config was named.
        config: It.
        curves: Of the scan.
        files: Of the weights, and of the curves.
        graph: Of the network.
        latency_table: Of its layers, to limit latency by.
    """
    prices = None if latency_table is None else LatencyPrices.of(graph, read_table(latency_table))
    weights, scan = files
    others = [text for text in told.overrides if not text.startswith("weights=")]
    pairs = [*others, f"weights={weights}"]
    words = ["flyweight", "prune", "-c", told.config, *(w for text in pairs for w in ("-o", text))]
    if isinstance(curves.criterion, str) and curves.criterion != config.prune.criterion:
        words += ["--prune-criterion", curves.criterion]
    timed: dict[str, Any] = {}
    if prices is not None:
        # Every plan of the page has widths that the runtime is fast with; so shall the commands'.
        words += ["-o", f"prune.round_to={prices.multiple_of(config.prune.round_to)}"]
        option = shlex.join(["--latency-table", str(latency_table)])
        timed = {"latency": prices, "latency_option": option}
    return Cutting(
        round_to=config.prune.round_to,
        inexact=False,
        aliases=old_names(graph.tensors),
        command=shlex.join([*words, "--sensitivities", str(scan)]),
        ratios_command=shlex.join(words),
        **timed,
    )


def write_scan_page(
    found: Scanned, source: ModelSource, page: Path, command: str, latency_table: Path | None = None
) -> None:
    """Write the plan explorer and the curves of a scan as one HTML page.

    Args:
        found: The scan, with the network's graph.
        source: The network, and how its config was named.
        page: The file to write.
        command: What writes the page again, for the page to say.
        latency_table: Of the network's layers, to limit latency by.

    Raises:
        FlyweightError: The source has no config, the table does not fit, or the curves do not.
    """
    if source.named is None or found.graph is None:
        raise ConfigError("The page of a scan must have a network. Received none. Add: -c CONFIG")
    (label, config), (_, weights) = source.named, source.find()
    told, places = ConfigSource(source.config, source.overrides), (weights, found.file)
    cutting = cutting_of(told, config, found.curves, places, found.graph, latency_table)
    subject = Subject(label, command)
    write_page(found.curves, page, found.graph, cutting=cutting, subject=subject)


def with_explorer(
    report: Report, folder: Path, *, graph: ModelGraph | None = None, say: Say
) -> Report:
    """Return the report with the plan explorer of the folder's scan, where it has one.

    Args:
        report: Of the run in `folder`.
        folder: Holds `sens*.json` and the dense network's checkpoint.
        graph: Of the dense network; else its checkpoint is traced.
        say: Told where a scan cannot be shown, and why.
    """
    scan = next(iter(sorted(folder.glob(SCANS))), None)
    if scan is None:
        return report
    weights = folder / "dense" / BEST
    try:
        curves = read(scan)
        if graph is None:
            loaded = open_checkpoint(weights)
            graph = trace_model(loaded.model.eval(), loaded.preprocessing)
        told = _told_by(report.command)
        cutting = Cutting(inexact=False, aliases=old_names(graph.tensors))
        if told is not None:
            config = load_config(told.config, told.overrides)[1]
            cutting = cutting_of(told, config, curves, (weights, scan), graph)
        shown = explorer(curves, graph, cutting)
    except FlyweightError as error:
        say(f"note: '{scan}' is not shown: {error}")
        return report
    return report.model_copy(update={"explorer": shown})


def _told_by(command: str) -> ConfigSource | None:
    """Return how a chain's command line named its config; None if it was none of ours."""
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    if words[:2] != ["flyweight", "demo"]:
        return None
    config = "demo_digits"
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word in ("-c", "--config"):
            config = following
        elif word.startswith("--config="):
            config = word.partition("=")[2]
    return ConfigSource(config, tuple(word for word in words if re.match(r"[\w.]+=", word)))
