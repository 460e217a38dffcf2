"""Distillation: a student that learns from a teacher, by losses on outputs and features.

Names load on first use, so that importing this package imports no torch.
"""

from typing import TYPE_CHECKING

from flyweight.on_demand import names_on_demand

if TYPE_CHECKING:  # For editors and type checkers; `HOMES` has the same names at run time.
    from flyweight.distillation.detector_losses import FgdWeights as FgdWeights
    from flyweight.distillation.detector_losses import crosskd as crosskd
    from flyweight.distillation.detector_losses import fgd as fgd
    from flyweight.distillation.distiller import Distiller as Distiller
    from flyweight.distillation.feature_losses import attention as attention
    from flyweight.distillation.feature_losses import cwd as cwd
    from flyweight.distillation.feature_losses import fsp as fsp
    from flyweight.distillation.feature_losses import l2 as l2
    from flyweight.distillation.feature_losses import mgd as mgd
    from flyweight.distillation.feature_losses import pkd as pkd
    from flyweight.distillation.head_losses import dkd as dkd
    from flyweight.distillation.head_losses import kl as kl
    from flyweight.distillation.head_losses import l2_distill as l2_distill
    from flyweight.distillation.head_losses import split_distill as split_distill
    from flyweight.distillation.strategies import STRATEGIES as STRATEGIES
    from flyweight.distillation.strategies import Strategy as Strategy
    from flyweight.distillation.strategies import Term as Term
    from flyweight.distillation.teacher import MatchedInput as MatchedInput
    from flyweight.distillation.teacher import Teacher as Teacher
    from flyweight.distillation.teacher_cache import OutputCache as OutputCache
    from flyweight.distillation.truth import Truth as Truth

# Public name to the module it lives in and its name there.
HOMES = {
    "Distiller": "flyweight.distillation.distiller:Distiller",
    "FgdWeights": "flyweight.distillation.detector_losses:FgdWeights",
    "MatchedInput": "flyweight.distillation.teacher:MatchedInput",
    "OutputCache": "flyweight.distillation.teacher_cache:OutputCache",
    "STRATEGIES": "flyweight.distillation.strategies:STRATEGIES",
    "Strategy": "flyweight.distillation.strategies:Strategy",
    "Teacher": "flyweight.distillation.teacher:Teacher",
    "Term": "flyweight.distillation.strategies:Term",
    "Truth": "flyweight.distillation.truth:Truth",
    "attention": "flyweight.distillation.feature_losses:attention",
    "crosskd": "flyweight.distillation.detector_losses:crosskd",
    "cwd": "flyweight.distillation.feature_losses:cwd",
    "dkd": "flyweight.distillation.head_losses:dkd",
    "fgd": "flyweight.distillation.detector_losses:fgd",
    "fsp": "flyweight.distillation.feature_losses:fsp",
    "kl": "flyweight.distillation.head_losses:kl",
    "l2": "flyweight.distillation.feature_losses:l2",
    "l2_distill": "flyweight.distillation.head_losses:l2_distill",
    "mgd": "flyweight.distillation.feature_losses:mgd",
    "pkd": "flyweight.distillation.feature_losses:pkd",
    "split_distill": "flyweight.distillation.head_losses:split_distill",
}

__all__ = sorted(HOMES)

__getattr__ = names_on_demand(__name__, HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *HOMES})
