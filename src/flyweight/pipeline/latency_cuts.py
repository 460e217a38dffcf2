"""Latency of pruned networks, measured in turns with the dense one; tables and cuts by latency."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from torch import nn

from flyweight.config.cuts import BudgetCut, RatioCut
from flyweight.config.measuring import BenchConfig
from flyweight.config.preprocessing import Preprocessing
from flyweight.errors import PlanError
from flyweight.exporting.onnx import OnnxConfig, to_onnx
from flyweight.measuring.bootstrap import median_interval
from flyweight.measuring.latency_table import LayerTable, read_table, require_runtime
from flyweight.measuring.measure import Measurement, measure
from flyweight.measuring.table_builder import measure_layers
from flyweight.pipeline.network_plans import example_input, prices_of, trace_model
from flyweight.planning.budget_solver import required
from flyweight.planning.loss_curves import ratios_of
from flyweight.progress import Progress
from flyweight.pruning import plan, prune
from flyweight.runtimes.runtime_table import DEFAULT_RUNTIME
from flyweight.sensitivity import Fitted, Round, Timing, fit_latency, read
from flyweight.zoo.sources.old_names import old_names

Say = Callable[[str], None]


class NetworkTimer:
    """Exports networks and measures each in turns with the dense one; a context manager.

    Only raw outputs are exported. Decoding and suppression are left out, because pruning does not
    make them faster.
    """

    def __init__(
        self,
        model: nn.Module,
        preprocessing: Preprocessing,
        *,
        threads: int = 1,
        seconds: float = 5.0,
        runtime: str = DEFAULT_RUNTIME,
    ) -> None:
        self.model, self.example = model, example_input(preprocessing)
        self.graph = trace_model(model, preprocessing)
        self.threads, self.config = threads, BenchConfig(seconds=seconds)
        self.runtime = runtime
        self._folder = tempfile.TemporaryDirectory()

    def __enter__(self) -> "NetworkTimer":
        return self

    def __exit__(self, *error: object) -> None:
        self._folder.cleanup()

    def dense_ms(self) -> float:
        """Return the dense network's median latency."""
        (row,) = self._measure([self._dense()])
        return timing_of(row, row).latency_ms

    def pruned(self, ratios: dict[str, float]) -> Timing:
        """Return the latency of the network without these shares of its layers' channels."""
        aliases = old_names(self.graph.tensors)
        # Which channels stay does not matter to latency.
        small = prune(self.model, plan(self.graph, ratios, "first", aliases=aliases))
        path = Path(self._folder.name) / "pruned.onnx"
        self._export(small, path)
        dense, found = self._measure([self._dense(), path])
        return timing_of(dense, found)

    def _export(self, model: nn.Module, path: Path) -> None:
        to_onnx(model, path, example=self.example, config=OnnxConfig(runtime=self.runtime))

    def _measure(self, files: list[Path]) -> tuple[Measurement, ...]:
        return measure(files, threads=(self.threads,), runtime=self.runtime, config=self.config)

    def _dense(self) -> Path:
        path = Path(self._folder.name) / "dense.onnx"
        if not path.exists():
            self._export(self.model, path)
        return path


def timing_of(dense: Measurement, found: Measurement) -> Timing:
    """Return a network's latency together with the dense one's.

    On a noisy machine with one thread, processor time replaces wall time: the two are equal when no
    other program uses the core.
    """
    if not (dense.is_noisy or found.is_noisy):
        return Timing(found.median_ms, found.interval_ms, dense.median_ms)
    if found.threads > 1:
        return Timing(found.median_ms, found.interval_ms, dense.median_ms, "NOISY MACHINE")
    interval = median_interval([[each] for each in found.blocks_cpu_ms])
    note = "processor time, because the machine is noisy"
    return Timing(found.cpu_ms, interval, dense.cpu_ms, note)


def measured_table(
    timer: NetworkTimer, save_to: Path, progress: Progress | bool = False
) -> LayerTable:
    """Return the table of a network's layers and of the whole network, saved as it grows.

    Raises:
        MeasureError: See `measure_layers`.
    """
    table = measure_layers(
        timer.graph, save_to, threads=timer.threads, runtime=timer.runtime, progress=progress
    )
    table = table.with_whole(timer.graph, timer.dense_ms())
    table.save(save_to)
    return table


def fitted_cut(cut: BudgetCut, timer: NetworkTimer, *, say: Say) -> tuple[RatioCut, Fitted]:
    """Return the cut, layer by layer, whose measured latency is within its budget.

    Args:
        cut: The scan, the budget and the table.
        timer: Measures the network and its cuts.
        say: Receives a line after every round.

    Raises:
        MeasureError: The table is of another runtime than the timer.
        PlanError: The budget is infeasible, or the dense network is within it.
    """
    require_runtime(read_table(cut.latency_table), timer.runtime)
    graph, prices = timer.graph, required(prices_of(cut, timer.graph))
    multiple = prices.multiple_of(cut.round_to)
    layers, options = read(cut.scan).options(graph, multiple, old_names(graph.tensors))
    rounds: list[Round] = []

    def report(found: Round) -> None:
        rounds.append(found)
        say(f"round {len(rounds)}: {found}")

    fitted = fit_latency(
        options,
        prices,
        cut.budget,
        lambda kept: timer.pruned(ratios_of(graph, layers, kept)),
        on_round=report,
    )
    say(fitted.verdict)
    if fitted.chosen is None:
        raise PlanError(
            f"A latency budget must call for a cut. Received {cut.budget}, where the dense network "
            f"takes {fitted.rounds[0].timing.dense_ms:.3f} ms. Nothing has to be cut."
        )
    ratios = ratios_of(graph, layers, fitted.kept)
    found = RatioCut(tuple(ratios), tuple(ratios.values()), cut.criterion)
    return found, fitted
