"""Pruning: criteria that score channels, plans that name those that stay, surgery that cuts."""

from flyweight.pruning.criteria import CRITERIA, Criterion
from flyweight.pruning.gradients import Taylor, taylor
from flyweight.pruning.make_plan import plan
from flyweight.pruning.masking import masked
from flyweight.pruning.names import resolve
from flyweight.pruning.plans import GroupPlan, PruningPlan
from flyweight.pruning.surgery import prune, prune_
from flyweight.pruning.verification import largest_error

__all__ = [
    "CRITERIA",
    "Criterion",
    "GroupPlan",
    "PruningPlan",
    "Taylor",
    "largest_error",
    "masked",
    "plan",
    "prune",
    "prune_",
    "resolve",
    "taylor",
]
