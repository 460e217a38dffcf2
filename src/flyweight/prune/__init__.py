"""Criteria score groups, a plan is data, surgery applies it."""

from flyweight.prune.criteria import CRITERIA, Criterion
from flyweight.prune.make_plan import plan
from flyweight.prune.names import resolve, split_list
from flyweight.prune.plan import GroupPlan, PruningPlan
from flyweight.prune.surgery import largest_error, masked, prune, prune_

__all__ = [
    "CRITERIA",
    "Criterion",
    "GroupPlan",
    "PruningPlan",
    "largest_error",
    "masked",
    "plan",
    "prune",
    "prune_",
    "resolve",
    "split_list",
]
