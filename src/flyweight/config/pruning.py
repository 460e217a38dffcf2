"""The `prune` section of a config: what to cut, and whether to repair what is left."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from flyweight.config.budget import Budget
from flyweight.config.cuts import Cut, build_cut, require_criterion
from flyweight.errors import PlanError


def _budget(given: Any) -> Budget | None:
    return None if given is None else Budget.of(given)


def _plain(budget: Budget | None) -> dict[str, float] | None:
    return None if budget is None else budget.plain()


class PruneConfig(BaseModel):
    """What `flyweight prune` and chains cut where the command line does not say it.

    A cut is described in exactly one way: `params` + `ratios`, `scan` + `max_drop`,
    `scan` + `budget`, or `ranking` + `budget`. A config that does not prune describes none;
    `params` alone only name the layers that `flyweight sensitivity` scans.

    Attributes:
        params: Layers, by the name of their weight; `[all]` is every layer that can be cut.
        ratios: Share of channels to remove, one per layer.
        scan: File of a sensitivity scan; `DEFAULT` names the curves that come with flyweight.
        foreign_scan: Use the scan although it is of other weights, or of another network, input or
            data, which is refused otherwise.
        max_drop: Share of the metric that each scanned layer may cost by itself.
        budget: What the network may cost: `{macs: 0.5}`, or as text `macs=0.5`. `macs`, `params`
            and `size_bytes` are below 1 the share kept, from 1000 on an amount.
        ranking: Criterion by which the channels of all groups are ranked.
        latency_table: File of measured layers, for a latency budget.
        criterion: How channels are scored: one of `cuts.CRITERION_NAMES`. A ranking names it
            itself.
        round_to: Multiple that the number of channels that stay is rounded to.
        repair: Refit the remaining weights after the cut, before any training.
        repair_images: Number of training images, without labels, that the repair uses.

    Raises:
        PlanError: The keys describe more than one cut, or a value is invalid.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    params: tuple[str, ...] = ()
    ratios: tuple[float, ...] = ()
    scan: str | None = None
    foreign_scan: bool = False
    max_drop: float | None = None
    budget: Annotated[Budget | None, BeforeValidator(_budget), PlainSerializer(_plain)] = None
    ranking: str | None = None
    latency_table: str | None = None
    criterion: str = "l1_norm"
    round_to: int = Field(default=1, gt=0)
    repair: bool = False
    repair_images: int = Field(default=500, ge=2)

    @model_validator(mode="before")
    @classmethod
    def _ranked(cls, values: Any) -> Any:
        ranked = isinstance(values, dict) and values.get("ranking") is not None
        return {"criterion": values["ranking"], **values} if ranked else values

    @model_validator(mode="after")
    def _check(self) -> Self:
        require_criterion(self.criterion)
        if self.ranking is not None and self.criterion != self.ranking:
            raise PlanError(
                "A ranking names its criterion itself. Received the ranking "
                f"'{self.ranking}' and the criterion '{self.criterion}'. Leave criterion out."
            )
        # Lists of different lengths are refused where a cut is requested: `params` alone may name
        # the layers to scan.
        if not (self.params or self.ratios) or len(self.params) == len(self.ratios):
            _ = self.cut
        return self

    @property
    def cut(self) -> Cut | None:
        """The cut that the section describes; None where it describes none.

        Raises:
            PlanError: Parameters and ratios are not equally many.
        """
        keys = ("params", "ratios", "scan", "max_drop", "budget", "ranking", "latency_table")
        given = {key: getattr(self, key) for key in keys}
        return build_cut(given, criterion=self.criterion, round_to=self.round_to)
