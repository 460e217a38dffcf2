"""Measured curves: the metric of a network after cuts of one layer each, as plain values.

`curves.Sensitivity` adds plans, files and drawings; charts and pages need these values alone.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flyweight.errors import DataError, PlanError
from flyweight.graph.model_graph import ModelGraph
from flyweight.pruning.criteria import CRITERIA, Criterion


@dataclass(frozen=True)
class Point:
    """The metric after one cut.

    Attributes:
        ratio: Share of the layer's channels that were removed.
        value: The metric.
        interval: Lower and upper end of its 95 % interval, where only a part of the data was used.
    """

    ratio: float
    value: float
    interval: tuple[float, float] | None = None

    def row(self) -> list[float]:
        """Return the numbers as they are written to a file."""
        return [self.ratio, self.value, *(self.interval or ())]

    @classmethod
    def of(cls, row: Sequence[Any]) -> "Point":
        """Read what `row` returned.

        Raises:
            TypeError: Something is not a number.
            ValueError: The row has not two or four numbers.
        """
        ratio, value, *ends = map(number_of, row)
        if len(ends) not in (0, 2):
            raise ValueError(f"{row!r} must be two or four numbers")
        if not 0 <= ratio <= 1:
            raise ValueError(f"a ratio must lie in 0..1, not {ratio:g}")
        return cls(ratio, value, (ends[0], ends[1]) if ends else None)


@dataclass(frozen=True)
class MeasuredCurves:
    """The metric of a network after cuts of one layer each.

    Attributes:
        metric: Its name.
        baseline: Its value before any cut.
        curves: Layer to points of rising ratio. Layers have the names that the scan was given.
        criterion: How channels were chosen.
        local: Whether each layer was scored alone, as the originals did.
        measured_on: Name of the data.
        made_from: What the numbers depend on, by name; see `sensitivity.made_from`.
        graph: Of the scanned network, to make plans for; it is not saved.
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
        require_baseline(self.metric, self.baseline)
        # Rounded, so that a loss at the threshold is not above it by an error of rounding.
        return {
            point.ratio: round((self.baseline - point.value) / self.baseline, 9)
            for point in self.curves[layer]
        }

    def all_losses(self) -> dict[str, dict[float, float]]:
        """Return the losses of every layer; see `losses`."""
        return {layer: self.losses(layer) for layer in self.curves}

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


def require_baseline(metric: str, value: float) -> None:
    """Check that losses can be shares of the metric before any cut.

    Args:
        metric: Its name.
        value: The metric before any cut.

    Raises:
        DataError: It is not above 0.
    """
    if not value > 0:
        raise DataError(
            "A sensitivity must be of a network that works: its metric before any cut must be "
            f"above 0. Received {metric} {value:g}. Train it first, or check "
            "that the weights and the data belong together."
        )


def number_of(value: Any) -> float:
    """Return a number of a JSON file.

    Raises:
        TypeError: The value is no number.
        ValueError: It is not finite.
    """
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{value!r} must be a number")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number} must be finite")
    return number
