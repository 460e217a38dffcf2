"""What a scan found: how the metric falls as layers lose channels, and the plans that follow."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flyweight.config.budget import Budget
from flyweight.config.cuts import BudgetCut, Cut, MaxDropCut, Rule
from flyweight.errors import DataError, PlanError
from flyweight.files import write_text
from flyweight.graph.model_graph import ModelGraph
from flyweight.measuring.latency_prices import LatencyPrices
from flyweight.planning.cut_plans import PlanRules, plan_cut
from flyweight.planning.knapsack import Option
from flyweight.planning.loss_curves import ratios_at, ratios_within, width_options
from flyweight.pruning.criteria import CRITERIA, Criterion
from flyweight.pruning.plans import PruningPlan
from flyweight.sensitivity.paddle_files import read_losses

FORMAT = 1


@dataclass(frozen=True)
class Point:
    """The metric after one cut.

    Attributes:
        ratio: Share of the layer's channels that left.
        value: The metric.
        interval: Ends of its 95 % interval, where only a part of the data was looked at.
    """

    ratio: float
    value: float
    interval: tuple[float, float] | None = None

    def row(self) -> list[float]:
        """Return the numbers as a file has them."""
        return [self.ratio, self.value, *(self.interval or ())]

    @classmethod
    def of(cls, row: Sequence[Any]) -> "Point":
        """Read what `row` returned.

        Raises:
            TypeError: Something is not a number.
            ValueError: These are not two or four numbers.
        """
        ratio, value, *ends = map(_number, row)
        if len(ends) not in (0, 2):
            raise ValueError(f"{row!r} must be two or four numbers")
        return cls(ratio, value, (ends[0], ends[1]) if ends else None)


@dataclass(frozen=True)
class Sensitivity:
    """The metric of a network after cuts of one layer each.

    Attributes:
        metric: Its name.
        baseline: Its value before any cut.
        curves: Layer to points of rising ratio. Layers have the names that they were asked for by.
        criterion: How channels were chosen.
        local: Whether each layer alone chose them, as the originals' did.
        measured_on: The data, in words.
        made_from: What the numbers depend on, as digests: `graph`, `weights`, `data`, `settings`.
        graph: To make plans for; it is not saved.
    """

    metric: str
    baseline: float
    curves: Mapping[str, tuple[Point, ...]]
    criterion: str | Criterion = "l1_norm"
    local: bool = False
    measured_on: str = ""
    made_from: Mapping[str, str] = field(default_factory=dict)
    graph: ModelGraph | None = field(default=None, compare=False, repr=False)

    def losses(self, layer: str) -> dict[float, float]:
        """Return a layer's losses by ratio, as shares of the baseline; negative is a gain.

        Raises:
            DataError: The baseline is 0: an untrained network, or the wrong data.
        """
        if not self.baseline > 0:
            raise DataError(
                "A sensitivity must be of a network that works: its metric before any cut must be "
                f"above 0. Received {self.metric} {self.baseline:g}. Train it first, or check "
                "that the weights and the data belong together."
            )
        # Rounded, so that a loss that was meant to be at the threshold is.
        return {
            point.ratio: round((self.baseline - point.value) / self.baseline, 9)
            for point in self.curves[layer]
        }

    def all_losses(self) -> dict[str, dict[float, float]]:
        """Return the losses of every layer; see `losses`."""
        return {layer: self.losses(layer) for layer in self.curves}

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
            max_drop: What each layer may cost by itself, before any training; together they cost
                more. See `ratios`.
            budget: Instead: what the network may cost; among all plans within it the one whose
                losses, added up, are least.
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

    def known_criterion(self) -> str | Criterion:
        """Return how channels are chosen.

        Raises:
            PlanError: The scan's criterion has to be measured again.
        """
        if isinstance(self.criterion, str) and self.criterion not in CRITERIA:
            raise PlanError(
                "A plan must choose channels as the scan did. Received a scan by "
                f"'{self.criterion}', which has to be measured again. Give the ratios to fw.plan "
                "with that criterion."
            )
        return self.criterion

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
        try:
            data = json.loads(text)
            if data["format"] != FORMAT:
                raise ValueError(f"format {data['format']!r}, where {FORMAT} is read")
            curves = {
                str(layer): tuple(Point.of(row) for row in sorted(points))
                for layer, points in data["curves"].items()
            }
            return cls(
                metric=str(data["metric"]),
                baseline=_number(data["baseline"]),
                curves=curves,
                criterion=str(data["criterion"]),
                local=bool(data["local"]),
                measured_on=str(data.get("measured_on", "")),
                made_from={str(k): str(v) for k, v in data["made_from"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise DataError(
                "A sensitivity file must be what flyweight wrote. Received text that fails with "
                f"{type(error).__name__}: {error}. Scan again."
            ) from error

    def save(self, path: Path) -> None:
        """Write the curves to `path`, whole or not at all."""
        write_text(path, self.to_json())

    def draw(self, path: str | Path, *, max_drop: float = 0.05) -> None:
        """Write a PNG of the curves; see `image.draw`."""
        from flyweight.sensitivity.charts import draw

        draw(self, path, max_drop=max_drop)

    def write_page(self, path: str | Path, *, graph: ModelGraph | None = None) -> None:
        """Write the curves and the plan explorer as one HTML page; see `page.write_page`."""
        from flyweight.sensitivity.page import write_page

        write_page(self, path, graph or self.graph)


def read(path: str | Path) -> Sensitivity:
    """Return the curves of a file of ours, or of an original's pickle.

    An original's file knows losses alone, so its baseline is 1.

    Raises:
        DataError: The file cannot be read or understood.
    """
    path = Path(path)
    try:
        start = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"A sensitivity file must be readable. Received '{path}': {error.strerror}. "
            "Check the path."
        ) from error
    if start.lstrip()[:1] == b"{":
        return Sensitivity.from_json(start.decode("utf-8", errors="replace"))
    curves = {
        name: tuple(Point(ratio, 1 - loss) for ratio, loss in losses.items())
        for name, losses in read_losses(path).items()
    }
    return Sensitivity("metric", 1.0, curves, local=True)


def merge(one: Sensitivity, other: Sensitivity) -> Sensitivity:
    """Return the curves of both; of a point that both have, the first one's.

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


def _number(value: Any) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{value!r} must be a number")
    return float(value)
