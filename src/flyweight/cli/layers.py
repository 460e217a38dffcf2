"""Latency tables from the command line: time each layer at each width, for latency budgets."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flyweight import on_demand, pipeline
from flyweight.cli.console import columns, show, show_json
from flyweight.config.reading import load_config
from flyweight.errors import ConfigError
from flyweight.pipeline.preflight import weights_path
from flyweight.runtimes.runtime_table import DEFAULT_RUNTIME, require_installed

if TYPE_CHECKING:
    from flyweight.graph import ModelGraph
    from flyweight.measuring.latency_table import LayerTable

_PRICES = "flyweight.measuring.latency_prices:LatencyPrices"


@dataclass(frozen=True)
class Request:
    """What the command line asks to measure.

    Attributes:
        config: Names the network.
        overrides: What `-o` tells.
        threads: Threads of one inference.
        seconds: Time for the whole network.
        runtime: Name of the runtime.
    """

    config: str
    overrides: tuple[str, ...]
    threads: int
    seconds: float
    runtime: str = DEFAULT_RUNTIME


def layers(request: Request, save_to: Path, *, as_json: bool) -> None:
    """Measure the layers of the config's network, or resume an interrupted table."""
    if not request.config:
        raise ConfigError("--layers must be told a network. Received no config. Add: -c CONFIG")
    require_installed(request.runtime)
    _, config = load_config(request.config, request.overrides)
    if config.weights:
        weights_path(config.weights)
    options = pipeline.LayersOptions(request.threads, request.seconds, request.runtime)
    found = pipeline.time_layers(config, save_to, options, progress=True)
    _tell(found.table, found.graph, found.file, as_json=as_json)


def _tell(table: "LayerTable", graph: "ModelGraph", saved: Path, *, as_json: bool) -> None:
    prices = on_demand.load(_PRICES).of(graph, table)
    whole, in_layers = prices.predict_ms({}), prices.sum_ms({})
    full = prices.full()
    slowest = sorted(prices.layers, key=lambda price: price.under(full), reverse=True)
    times = [(price.layer, price.under(full)) for price in slowest]
    count = sum(len(points) for points in table.layers.values())
    if as_json:
        show_json(
            {
                "step": table.step,
                "excess": {} if table.found is None else dict(table.found.excess),
                "dense_ms": whole,
                "layers_ms": {layer.name: time for layer, time in times},
                "measured": count,
                "not_timed": dict(graph.costs.uncounted),
                "made_on": dict(table.made_on),
                "file": saved,
            }
        )
        return
    rows = [("slowest layers", "in", "out", "ms")]
    for layer, time in times[:8]:
        reads, makes = layer.full
        rows.append((layer.name, str(reads), str(makes), f"{time:.3f}"))
    show(f"{columns(rows)}\n\n{table.found}")
    show(f"layers {in_layers:.3f} ms, whole network {whole:.3f} ms; {count} times in {saved}")
