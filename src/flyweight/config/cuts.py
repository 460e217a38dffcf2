"""Cuts: what to prune, in one of four ways, as frozen values that are valid once they exist.

A config, the command line and Python all build the same values. They name layers, files and
criteria; `planning.cut_plans.plan_cut` turns one into a plan for a traced network.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from flyweight.config.budget import Budget
from flyweight.errors import PlanError, counted, nearest

TAYLOR = "taylor"
"""The criterion that is measured on training images."""
CRITERION_NAMES = (
    *("l1_norm", "l2_norm", "geometry_median", "bn_scale", "random", "first"),
    TAYLOR,
)
"""The names of criteria: those of `pruning.CRITERIA`, and `taylor`."""
RANKING_NAMES = tuple(name for name in CRITERION_NAMES if name != "first")
"""Criteria whose scores can be compared between groups; those of `first` are positions."""
ALL = "all"
"""In place of layers: every layer that can be cut."""
BUILT_IN = "DEFAULT"
"""In place of a scan's file: the curves that come with flyweight. The originals' word."""
THIS_RUN = "this_run"
"""In place of a scan's or a latency table's file: a chain makes it from its own network."""

Rule = Literal["monotone", "original"]
"""How a curve that dips below the allowed drop again is read; see `planning.loss_curves`."""


@dataclass(frozen=True)
class RatioCut:
    """A cut of named layers by given shares of their channels.

    Attributes:
        params: Layers, by the name of their weight; old spellings are understood. `all` alone
            means every layer that can be cut.
        ratios: Share of channels to remove, one per layer, strictly between 0 and 1.
        criterion: How channels are scored: one of `CRITERION_NAMES`.
        round_to: Multiple that the number of channels that stay is rounded to.

    Raises:
        PlanError: A value is invalid, or the lists do not fit together.
    """

    params: tuple[str, ...]
    ratios: tuple[float, ...]
    criterion: str = "l1_norm"
    round_to: int = 1

    def __post_init__(self) -> None:
        if not self.params and not self.ratios:
            raise nothing_to_cut()
        if len(self.params) != len(self.ratios):
            raise PlanError(
                "Pruned parameters and ratios must be equally many. Received "
                f"{counted(len(self.params), 'parameter')} and "
                f"{counted(len(self.ratios), 'ratio')}. Give one ratio per parameter."
            )
        require_criterion(self.criterion)
        require_multiple(self.round_to)
        if len(set(self.params)) < len(self.params):
            twice = next(name for name in self.params if self.params.count(name) > 1)
            raise PlanError(
                f"A parameter must be named once. Received '{twice}' twice. Remove one."
            )
        if ALL in self.params and len(self.params) > 1:
            raise PlanError(
                f"'{ALL}' must stand alone: it names every layer that can be cut. Received "
                f"'{ALL}' and {counted(len(self.params) - 1, 'more name')}. Leave '{ALL}' or the "
                "names out."
            )
        for name, ratio in zip(self.params, self.ratios, strict=True):
            require_ratio(name, ratio)


@dataclass(frozen=True)
class MaxDropCut:
    """A cut of every scanned layer as far as its own curve allows.

    Attributes:
        scan: File of a sensitivity scan, or `DEFAULT`.
        max_drop: Share of the metric that each layer may cost by itself, in 0..1.
        criterion: As in `RatioCut`.
        round_to: As in `RatioCut`.
        rule: How a curve that dips is read.

    Raises:
        PlanError: A value is invalid.
    """

    scan: str
    max_drop: float
    criterion: str = "l1_norm"
    round_to: int = 1
    rule: Rule = "monotone"

    def __post_init__(self) -> None:
        require_max_drop(self.max_drop)
        require_criterion(self.criterion)
        require_multiple(self.round_to)


@dataclass(frozen=True)
class BudgetCut:
    """A cut to the widths of least predicted loss within a budget.

    Attributes:
        scan: File of a sensitivity scan, or `DEFAULT`.
        budget: What the network may cost.
        criterion: As in `RatioCut`.
        round_to: As in `RatioCut`.
        latency_table: File of measured layers; a latency budget must have one, others must not.

    Raises:
        PlanError: A value is invalid.
    """

    scan: str
    budget: Budget
    criterion: str = "l1_norm"
    round_to: int = 1
    latency_table: str = ""

    def __post_init__(self) -> None:
        require_criterion(self.criterion)
        require_multiple(self.round_to)
        if self.budget.measured and not self.latency_table:
            raise no_latency_table()
        if self.latency_table and not self.budget.measured:
            raise PlanError(
                "A latency table must come with a latency budget. Received the budget "
                f"'{self.budget}'. Write: --budget latency_ms=MILLISECONDS, or leave the table out."
            )


@dataclass(frozen=True)
class RankingCut:
    """A cut of the channels that cost much and matter little, all groups ranked together.

    Attributes:
        ranking: How channels are scored: one of `RANKING_NAMES`, as in `planning.plan_globally`.
        budget: What the network may cost; not a latency.
        round_to: As in `RatioCut`.

    Raises:
        PlanError: A value is invalid.
    """

    ranking: str
    budget: Budget
    round_to: int = 1

    def __post_init__(self) -> None:
        if self.ranking not in RANKING_NAMES:
            raise PlanError(
                f"A ranking must be one of {', '.join(RANKING_NAMES)}. Received '{self.ranking}'. "
                f"{nearest(str(self.ranking), RANKING_NAMES)}"
            )
        require_multiple(self.round_to)
        require_counted(self.budget)

    @property
    def criterion(self) -> str:
        """The ranking, under the name that the other cuts have for it."""
        return self.ranking


Cut = RatioCut | MaxDropCut | BudgetCut | RankingCut

_KINDS: Mapping[frozenset[str], type[Cut]] = {
    frozenset({"params", "ratios"}): RatioCut,
    frozenset({"scan", "max_drop"}): MaxDropCut,
    frozenset({"scan", "budget"}): BudgetCut,
    frozenset({"ranking", "budget"}): RankingCut,
}
_KEYS = ("params", "ratios", "scan", "max_drop", "ranking", "budget")
_WAYS = "params + ratios, scan + max_drop, scan + budget, or ranking + budget"


def build_cut(
    options: Mapping[str, Any], *, criterion: str = "l1_norm", round_to: int = 1
) -> Cut | None:
    """Return the cut that keys and values describe; None where they say nothing.

    Args:
        options: `params`, `ratios`, `scan`, `max_drop`, `budget`, `ranking`, `latency_table` to
            their values; None and empty values count as not given.
        criterion: How channels are scored, except in a ranking, which has its own criterion.
        round_to: As in `RatioCut`.

    Raises:
        PlanError: The keys are those of no kind of cut or of several, or a value is invalid.
    """
    given = {key: value for key, value in options.items() if value not in (None, "", ())}
    keys = frozenset(given) - {"latency_table"}
    if not given:
        return None
    if keys and keys <= {"params", "ratios"}:  # one of the two alone is a matter of their lengths
        given = {"params": (), "ratios": (), **given}
        keys = frozenset({"params", "ratios"})
    kind = _KINDS.get(keys)
    if kind is None:
        raise _no_single_kind(keys)
    if "latency_table" in given and kind is not BudgetCut:
        raise PlanError(
            "A latency table must come with a scan and a latency budget. Received "
            f"{_listed(keys)}. Leave the table out."
        )
    if "budget" in given:
        given["budget"] = Budget.of(given["budget"])
    if kind is not RankingCut:
        given["criterion"] = criterion
    return kind(**given, round_to=round_to)


def plain_cut(cut: Cut) -> dict[str, Any]:
    """Return a cut as plain values, for digests and records; equal cuts give equal values.

    Example:
        >>> plain_cut(RankingCut("l1_norm", Budget(macs=0.5)))
        {'kind': 'RankingCut', 'ranking': 'l1_norm', 'budget': {'macs': 0.5}, 'round_to': 1}
    """
    values = {"kind": type(cut).__name__, **asdict(cut)}
    if "budget" in values:
        values["budget"] = cut.budget.plain()  # type: ignore[union-attr]
    return values


def _no_single_kind(keys: frozenset[str]) -> PlanError:
    wider = [kind - keys for kind in _KINDS if keys < kind]
    if wider:
        hint = f"Add {' or '.join(sorted(key for more in wider for key in more))}."
    else:
        hint = "Leave out what belongs to another way, for example params=[] and ratios=[]."
    return PlanError(
        f"A cut must be described in exactly one way: {_WAYS}. Received {_listed(keys)}. {hint}"
    )


def _listed(keys: frozenset[str]) -> str:
    names = [key for key in _KEYS if key in keys] or ["none of these"]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def nothing_to_cut() -> PlanError:
    """Return the error of a cut that was not described."""
    return PlanError(
        "Pruning must have a cut. Received no layer and no budget. Give --pruned-params and "
        "--pruned-ratios, --sensitivities and --max-drop, or --budget; or a 'prune' section in "
        "the config."
    )


def no_latency_table() -> PlanError:
    """Return the error of a latency budget without a table."""
    return PlanError(
        "A latency budget must come with a table of layers measured on the runtime. Received "
        "none. Make one with: flyweight bench --layers -c CONFIG --save layers.json, and give "
        "it as --latency-table layers.json"
    )


def require_criterion(name: object) -> None:
    """Check the name of a criterion.

    Raises:
        PlanError: It is none of `CRITERION_NAMES`.
    """
    if name not in CRITERION_NAMES:
        raise PlanError(
            f"A criterion must be a known one. Received '{name}'. "
            f"{nearest(str(name), CRITERION_NAMES)}"
        )


def require_ratio(name: str, ratio: object) -> None:
    """Check the share of channels that a layer loses.

    Args:
        name: The layer, for the error message; "every group" for all of them.
        ratio: The share.

    Raises:
        PlanError: It is no number strictly between 0 and 1.
    """
    if not _is_number(ratio) or not 0 < float(ratio) < 1:  # type: ignore[arg-type]
        raise PlanError(
            "A ratio must lie strictly between 0 and 1 (the share of channels to remove). "
            f"Received {ratio!r} for "
            f"{name if name == 'every group' else repr(name)}. Leave a layer out to keep it whole."
        )


def require_max_drop(max_drop: object) -> None:
    """Check the share of the metric that a layer may cost.

    Raises:
        PlanError: It is no number in 0..1.
    """
    if not _is_number(max_drop) or not 0 <= float(max_drop) <= 1:  # type: ignore[arg-type]
        raise PlanError(
            f"max_drop must be a share of the baseline between 0 and 1. Received {max_drop!r}. "
            "0.05 allows each layer to cost five per cent."
        )


def require_multiple(round_to: object) -> None:
    """Check that widths can be rounded to multiples of `round_to`.

    Raises:
        PlanError: It is no whole number of at least 1.
    """
    if not isinstance(round_to, int) or isinstance(round_to, bool) or round_to < 1:
        raise PlanError(
            "round_to must be a whole number of at least 1. "
            f"Received {round_to!r}. Give 8 to keep multiples of eight."
        )


def require_counted(budget: Budget) -> None:
    """Check that a ranking can meet a budget.

    Raises:
        PlanError: The budget limits latency.
    """
    if budget.measured:
        raise PlanError(
            "The budget of a ranking must limit macs, params or size_bytes. Received "
            f"{budget}. A latency budget must come with a scan: --sensitivities FILE "
            "--latency-table FILE"
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
