"""`--pruned-params` and `--pruned-ratios`, or a scan instead, as several commands take them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flyweight.errors import PlanError

if TYPE_CHECKING:
    from flyweight.config.settings import PruneConfig
    from flyweight.pipeline.network_plans import Cut


@dataclass(frozen=True)
class Ratios:
    """What `--pruned-params` and `--pruned-ratios` say, or a scan and what may be lost or spent."""

    params: str
    ratios: str
    sensitivities: str = ""
    max_drop: float = 0.05
    budget: str = ""
    latency_table: str = ""

    @property
    def given(self) -> bool:
        """Whether the command line says anything."""
        return bool(self.params or self.ratios or self.sensitivities)

    def cut(self, default: "PruneConfig", criterion: str = "") -> "Cut":
        """Return what to cut: from the command line if it says, else from the config.

        Raises:
            PlanError: A ratio is no number, or the lists are not equally long.
        """
        from flyweight.pipeline.network_plans import Cut
        from flyweight.pruning import split_list

        chosen = criterion or default.criterion
        if self.sensitivities or self.budget or self.latency_table:
            return self._from_curves(default, chosen)
        if not self.given:
            return Cut(default.params, default.ratios, chosen, default.round_to)
        numbers = tuple(_number(text) for text in split_list(self.ratios))
        return Cut(tuple(split_list(self.params)), numbers, chosen, default.round_to)

    def _from_curves(self, default: "PruneConfig", criterion: str) -> "Cut":
        from flyweight.pipeline.network_plans import Cut
        from flyweight.sensitivity import read

        if self.params or self.ratios:
            raise PlanError(
                "Ratios must come from one place. Received --sensitivities and --pruned-params "
                "or --pruned-ratios. Leave one of them out."
            )
        if self.budget and not self.sensitivities:
            raise PlanError(
                "A budget must come with a scan. Received --budget without --sensitivities. "
                "Make one with: flyweight sensitivity"
            )
        if self.latency_table and not self.budget.startswith("latency"):
            raise PlanError(
                "--latency-table must come with a latency budget. Received --budget "
                f"'{self.budget}'. Add: --budget latency_ms=MILLISECONDS"
            )
        if self.budget:
            given = {"scan": self.sensitivities, "budget": self.budget}
            if self.latency_table:
                from flyweight.pipeline.latency_cuts import LatencyCut

                given["latency_table"] = self.latency_table
                return LatencyCut((), (), criterion, default.round_to, from_scan=True, **given)
            return Cut((), (), criterion, default.round_to, from_scan=True, **given)
        found = read(self.sensitivities).ratios(self.max_drop)
        names, ratios = tuple(found), tuple(found.values())
        return Cut(names, ratios, criterion, default.round_to, from_scan=True)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise PlanError(
            f"A ratio must be a number between 0 and 1. Received '{text}' in --pruned-ratios. "
            "Write 0.5 to remove half."
        ) from error
