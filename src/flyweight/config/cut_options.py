"""The options of the command line that describe a cut, and the cut that they give."""

from dataclasses import dataclass, replace

from flyweight.config.budget import Budget
from flyweight.config.cuts import (
    BudgetCut,
    Cut,
    MaxDropCut,
    RankingCut,
    build_cut,
    nothing_to_cut,
)
from flyweight.config.pruning import PruneConfig
from flyweight.errors import PlanError

DEFAULT_MAX_DROP = 0.05
"""What each layer may cost where a scan is given and no limit."""

_CUT_KEYS = ("params", "ratios", "scan", "max_drop", "budget", "ranking", "latency_table")


@dataclass(frozen=True)
class CutOptions:
    """Options of the command line about a cut, as typed; empty values are not given.

    Attributes:
        params: `--pruned-params`: layers, separated by commas or spaces.
        ratios: `--pruned-ratios`: shares of channels to remove, likewise.
        scan: `--sensitivities`: file of a scan, or `DEFAULT`.
        max_drop: `--max-drop`: share of the metric that each layer may cost.
        budget: `--budget`: `macs=0.5` and so on.
        latency_table: `--latency-table`: file of measured layers.
        criterion: `--prune-criterion`: how channels are scored.
    """

    params: str = ""
    ratios: str = ""
    scan: str = ""
    max_drop: float | None = None
    budget: str = ""
    latency_table: str = ""
    criterion: str = ""

    @property
    def given(self) -> bool:
        """Whether the options describe a cut."""
        return bool(self.params or self.ratios or self.scan or self.budget)

    def cut(self, default: PruneConfig) -> Cut:
        """Return what to cut: what the options describe, else what the config does.

        A scan without a limit allows each layer a drop of 0.05; a budget without a scan ranks the
        channels of all groups.

        Args:
            default: The config's `prune` section. Its criterion and rounding hold where the
                options do not say otherwise.

        Raises:
            PlanError: The options describe no valid cut, or more than one.
        """
        if not self.given:
            return self._changed(default)
        self._require_one_kind()
        chosen = {
            "params": tuple(split_list(self.params)),
            "ratios": tuple(_number(text) for text in split_list(self.ratios)),
            "scan": self.scan,
            "max_drop": self.max_drop,
            "budget": self.budget,
            "latency_table": self.latency_table,
        }
        criterion = self.criterion or default.criterion
        if self.budget and not self.scan:
            chosen["ranking"] = self.criterion or default.ranking or criterion
        elif self.budget and not self.latency_table and Budget.parse(self.budget).measured:
            chosen["latency_table"] = default.latency_table
        elif self.scan and not self.budget and self.max_drop is None:
            chosen["max_drop"] = DEFAULT_MAX_DROP
        cut = build_cut(chosen, criterion=criterion, round_to=default.round_to)
        if cut is None:
            raise nothing_to_cut()
        return cut

    def applied_to(self, default: PruneConfig) -> PruneConfig:
        """Return the config's `prune` section with the cut that the options describe.

        Args:
            default: As for `cut`.

        Raises:
            PlanError: As `cut`.
        """
        cut = self.cut(default)
        named = {key: value for key, value in vars(cut).items() if key in PruneConfig.model_fields}
        cleared = {key: PruneConfig.model_fields[key].default for key in _CUT_KEYS}
        return default.model_copy(update={**cleared, **named})

    def _require_one_kind(self) -> None:
        if (self.params or self.ratios) and (self.scan or self.budget):
            raise PlanError(
                "Ratios must come from one place. Received "
                f"{'--sensitivities' if self.scan else '--budget'} and --pruned-params "
                "or --pruned-ratios. Leave one of them out."
            )
        if self.budget and self.max_drop is not None:
            raise PlanError(
                "A cut must have one limit. Received --budget and --max-drop. "
                "Leave one of them out."
            )

    def _changed(self, default: PruneConfig) -> Cut:
        """Return the config's cut with what the options change of it."""
        cut = default.cut
        if self.latency_table:
            if not (isinstance(cut, BudgetCut) and cut.budget.measured):
                raise PlanError(
                    "--latency-table must come with a latency budget. Received no --budget. "
                    "Add: --budget latency_ms=MILLISECONDS"
                )
            cut = replace(cut, latency_table=self.latency_table)
        if self.max_drop is not None:
            if not isinstance(cut, MaxDropCut):
                raise PlanError(
                    "--max-drop must come with a scan. Received no --sensitivities. "
                    "Make a scan with: flyweight sensitivity"
                )
            cut = replace(cut, max_drop=self.max_drop)
        if cut is None:
            raise nothing_to_cut()
        if not self.criterion:
            return cut
        if isinstance(cut, RankingCut):
            return replace(cut, ranking=self.criterion)
        return replace(cut, criterion=self.criterion)


def split_list(text: str) -> list[str]:
    """Split on commas or white space, as the originals' documents and scripts did.

    Example:
        >>> split_list("conv1.weights,conv2.weights  conv3.weights")
        ['conv1.weights', 'conv2.weights', 'conv3.weights']
    """
    return [part for part in text.replace(",", " ").split() if part]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise PlanError(
            f"A ratio must be a number between 0 and 1. Received '{text}' in --pruned-ratios. "
            "Write 0.5 to remove half."
        ) from error
