"""Sensitivity: the measured curves of a scan, with plans, files and drawings made of them."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from flyweight.config.budget import Budget
from flyweight.config.cuts import BudgetCut, Cut, MaxDropCut, Rule
from flyweight.errors import DataError, PlanError
from flyweight.files import write_text
from flyweight.graph.model_graph import ModelGraph
from flyweight.measuring.latency_prices import LatencyPrices
from flyweight.on_demand import load
from flyweight.planning.cut_plans import PlanRules, plan_cut
from flyweight.planning.knapsack import Option
from flyweight.planning.loss_curves import ratios_at, ratios_within, width_options
from flyweight.pruning.plans import PruningPlan
from flyweight.sensitivity.measured_curves import MeasuredCurves, Point, number_of
from flyweight.sensitivity.paddle_files import read_losses
from flyweight.untrusted.failures import refusing
from flyweight.untrusted.file_bytes import read_bytes
from flyweight.untrusted.json_values import parse_json

FORMAT = 1


_WRITERS = {
    "chart": "flyweight.sensitivity.charts:draw",
    "page": "flyweight.sensitivity.page:write_page",
}


@dataclass(frozen=True)
class Sensitivity(MeasuredCurves):
    """Measured curves, and the plans, files and drawings made of them."""

    def ratios(self, max_drop: float, *, rule: Rule = "monotone") -> dict[str, float]:
        """Return, for every layer, the largest ratio that costs at most `max_drop`.

        Args:
            max_drop: Share of the baseline, for example 0.05; the originals' `eval_metric_loss`.
            rule: How a curve that dips below the threshold again is read; see
                `planning.loss_curves.ratios_at`.

        Raises:
            PlanError: `max_drop` is not within 0..1, or no layer allows any cut.
        """
        return ratios_at(self.all_losses(), max_drop, rule)

    def plan(
        self,
        *,
        max_drop: float | None = None,
        budget: Budget | None = None,
        graph: ModelGraph | None = None,
        rule: Rule = "monotone",
        round_to: int = 1,
        aliases: Mapping[str, str] | None = None,
    ) -> PruningPlan:
        """Return the plan that cuts every layer as far as the curves allow.

        Args:
            max_drop: Share of the metric that each layer may cost by itself, before any training;
                all together cost more. See `ratios`.
            budget: In place of `max_drop`: what the network may cost. Of all plans within it, the
                one whose losses, added up, are least.
            graph: Of the network to cut; by default the one that was scanned.
            rule: See `ratios`; for `max_drop` alone.
            round_to: Multiple that the channels that stay are rounded to.
            aliases: Other names of parameters.

        Raises:
            PlanError: No graph is known, the scan was of other layers, no cut is allowed, or the
                budget cannot be met.
        """
        known = graph or self.graph
        if known is None:
            raise PlanError(
                "A plan must have a graph. Received curves read from a file. Give graph=trace(...)."
            )
        if (max_drop is None) == (budget is None):
            raise PlanError(
                "A plan must be given either max_drop or a budget. "
                f"Received max_drop={max_drop!r} and budget={budget!r}. Leave one of them out."
            )
        cut: Cut
        if budget is not None:
            cut = BudgetCut("curves", budget, round_to=round_to)
        else:
            cut = MaxDropCut("curves", float(max_drop or 0), round_to=round_to, rule=rule)
        return plan_cut(
            known,
            cut,
            losses=self.all_losses(),
            scorer=self.known_criterion(),
            rules=PlanRules(local=self.local, inexact=True, aliases=aliases),
        )

    def ratios_within(
        self,
        graph: ModelGraph,
        budget: Budget,
        round_to: int = 1,
        aliases: Mapping[str, str] | None = None,
        latency: LatencyPrices | None = None,
    ) -> dict[str, float]:
        """Return the ratios of least loss, added up, within a budget.

        See `planning.loss_curves.ratios_within`.
        """
        losses = self.all_losses()
        return ratios_within(
            losses, graph, budget, round_to=round_to, aliases=aliases, prices=latency
        )

    def options(
        self, graph: ModelGraph, round_to: int = 1, aliases: Mapping[str, str] | None = None
    ) -> tuple[dict[str, str], dict[str, list[Option]]]:
        """Return the layer of each scanned group, and the widths that it can take.

        See `planning.loss_curves.width_options`.
        """
        return width_options(self.all_losses(), graph, round_to, aliases)

    def to_json(self) -> str:
        """Return the curves as text; equal curves give equal text."""
        name = self.criterion
        if not isinstance(name, str):
            name = getattr(name, "__name__", type(name).__name__)
        values = {
            "format": FORMAT,
            "metric": self.metric,
            "baseline": self.baseline,
            "criterion": name,
            "local": self.local,
            "measured_on": self.measured_on,
            "made_from": dict(self.made_from),
        }
        lines = [f' "{key}": {json.dumps(value)}' for key, value in values.items()]
        rows = [
            f"  {json.dumps(layer)}: {json.dumps([point.row() for point in points])}"
            for layer, points in self.curves.items()
        ]
        lines.append(' "curves": {\n' + ",\n".join(rows) + "\n }")
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @classmethod
    def from_json(cls, text: str) -> "Sensitivity":
        """Read what `to_json` wrote.

        Raises:
            DataError: The text is something else, or of another format.
        """
        must = "A sensitivity file must be what flyweight wrote."
        with refusing(DataError, must, "text", "Scan again."):
            data = parse_json(text)
            if data["format"] != FORMAT:
                raise ValueError(f"format {data['format']!r}, where {FORMAT} is read")
            curves = {
                str(layer): tuple(Point.of(row) for row in sorted(points))
                for layer, points in data["curves"].items()
            }
            _require_points(curves)
            return cls(
                metric=str(data["metric"]),
                baseline=number_of(data["baseline"]),
                curves=curves,
                criterion=str(data["criterion"]),
                local=bool(data["local"]),
                measured_on=str(data.get("measured_on", "")),
                made_from={str(k): str(v) for k, v in data["made_from"].items()},
            )

    def save(self, path: Path) -> None:
        """Write the curves to `path`, whole or not at all."""
        write_text(path, self.to_json())

    def draw(self, path: str | Path, *, max_drop: float = 0.05) -> None:
        """Write a PNG of the curves; see `charts.draw`."""
        load(_WRITERS["chart"])(self, path, max_drop=max_drop)

    def write_page(self, path: str | Path, *, graph: ModelGraph | None = None) -> None:
        """Write the curves and the plan explorer as one HTML page; see `page.write_page`."""
        load(_WRITERS["page"])(self, path, graph or self.graph)


def read(path: str | Path) -> Sensitivity:
    """Return the curves of a file that flyweight or one of the originals wrote.

    The originals' pickle files hold losses alone, so their baseline is 1. Nothing is unpickled.

    Raises:
        DataError: The file cannot be read or understood.
    """
    path = Path(path)
    must = "A sensitivity file must be readable."
    with refusing(DataError, must, f"'{path}'", "Check the path."):
        start = read_bytes(path)
    if start.lstrip()[:1] == b"{":
        return Sensitivity.from_json(start.decode("utf-8", errors="replace"))
    must = "A sensitivity file must have curves."
    with refusing(DataError, must, f"'{path}'", "Scan again."):
        curves = {
            name: tuple(Point.of((ratio, 1 - loss)) for ratio, loss in losses.items())
            for name, losses in read_losses(path).items()
        }
        _require_points(curves)
    return Sensitivity("metric", 1.0, curves, local=True)


def _require_points(curves: Mapping[str, tuple[Point, ...]]) -> None:
    empty = next((layer for layer, points in curves.items() if not points), None)
    if not curves or empty is not None:
        raise ValueError("no curves" if empty is None else f"no point for layer '{empty}'")


def merge(one: Sensitivity, other: Sensitivity) -> Sensitivity:
    """Return the curves of both; a point that both have is taken from the first.

    Raises:
        DataError: They are not of the same network, data and metric.
    """
    for name, mine in {"metric": one.metric, **one.made_from}.items():
        theirs = {"metric": other.metric, **other.made_from}.get(name, mine)
        if mine != theirs and name != "settings":
            raise DataError(
                f"Merged scans must be of the same {name}. Received '{mine}' and '{theirs}'. "
                "Scan both on the same."
            )
    if not math.isclose(one.baseline, other.baseline, rel_tol=1e-6):
        raise DataError(
            "Merged scans must have the same metric before any cut. Received "
            f"{one.baseline:g} and {other.baseline:g}. Scan both on the same."
        )
    curves = dict(one.curves)
    for layer, points in other.curves.items():
        by_ratio = {point.ratio: point for point in (*points, *curves.get(layer, ()))}
        curves[layer] = tuple(by_ratio[ratio] for ratio in sorted(by_ratio))
    return replace(one, curves=curves)
