"""Cuts that a scan measures: every ratio on every layer, one plan each."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flyweight.config.scanning import RATIOS as RATIOS
from flyweight.errors import PlanError, counted
from flyweight.graph.model_graph import ModelGraph
from flyweight.pruning import PruningPlan, plan
from flyweight.pruning.criteria import Criterion

LayerCut = tuple[str, float]
"""A layer, and the share of its channels that are removed."""
BASELINE: LayerCut = ("", 0.0)
"""The network before any cut."""


@dataclass(frozen=True)
class Cuts:
    """The cuts to measure.

    Attributes:
        ratios: Shares of a layer's channels to remove.
        layers: The layers, by any name that a plan accepts; None means every group that can be
            cut.
        criterion: How channels are chosen.
        local: Whether the named layer alone is scored, as the originals did.
        inexact: Whether groups whose channels an operation mixes are measured too; each of their
            cuts costs a run of the whole network.
        aliases: Other names of parameters.
    """

    ratios: Sequence[float] = RATIOS
    layers: Sequence[str] | None = None
    criterion: str | Criterion = "l1_norm"
    local: bool = False
    inexact: bool = False
    aliases: Mapping[str, str] | None = None

    def plans(self, graph: ModelGraph) -> dict[LayerCut, PruningPlan]:
        """Return a plan for every cut; ratios that remove nothing are left out.

        Raises:
            PlanError: A layer, a ratio or the criterion is unknown or invalid, or nothing is cut.
        """
        layers = self.layers
        if layers is None:
            layers = [g.name for g in graph.groups.values() if g.reason is None]
            layers = [n for n in layers if self.inexact or graph.groups[n].exact]
        made = {
            (layer, round(float(ratio), 6)): plan(
                graph,
                {layer: ratio},
                self.criterion,
                local=self.local,
                inexact=self.inexact,
                aliases=self.aliases,
            )
            for layer in layers
            for ratio in sorted(self.ratios)
        }
        found = {cut: one for cut, one in made.items() if one.groups}
        if not found:
            raise PlanError(
                "A scan must remove at least one channel. Received "
                f"{counted(len(layers), 'layer')} and ratios {tuple(self.ratios)} that remove no "
                "channel. Use larger ratios."
            )
        return found


def digest_of(plans: Mapping[LayerCut, PruningPlan]) -> str:
    """Return a digest of the cuts: which channels stay in each."""
    keeps: list[Any] = [(cut, sorted(one.keep.items())) for cut, one in sorted(plans.items())]
    return hashlib.sha256(repr(keeps).encode()).hexdigest()[:16]
