"""Make trained vision models small and fast under a budget, and prove it.

Names load on first use, so that `import flyweight` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # What editors and type checkers see; `_HOMES` says the same at run time.
    from flyweight.bench.measure import measure as measure
    from flyweight.checkpoint import Checkpoint as Checkpoint
    from flyweight.checkpoint import load as load
    from flyweight.checkpoint import save as save
    from flyweight.errors import FlyweightError as FlyweightError
    from flyweight.exporting.onnx import to_onnx as export  # noqa: F401 - another name there
    from flyweight.exporting.package import ModelCard as ModelCard
    from flyweight.graph import Cost as Cost
    from flyweight.graph import ModelGraph as ModelGraph
    from flyweight.graph import trace as trace
    from flyweight.pruning import PruningPlan as PruningPlan
    from flyweight.pruning import plan as plan
    from flyweight.pruning import plan_globally as plan_globally
    from flyweight.pruning import prune as prune
    from flyweight.pruning import prune_ as prune_
    from flyweight.pruning import ratios_per_step as ratios_per_step
    from flyweight.pruning import taylor as taylor
    from flyweight.pruning.repair import RepairReport as RepairReport
    from flyweight.pruning.repair import RepairSettings as RepairSettings
    from flyweight.pruning.repair import repair as repair
    from flyweight.pruning.repair import repair_ as repair_
    from flyweight.sensitivity import Budget as Budget
    from flyweight.sensitivity import Pace as Pace
    from flyweight.sensitivity import Sensitivity as Sensitivity
    from flyweight.sensitivity import scan as scan
    from flyweight.zoo import create as create

__version__ = "0.1.0"

# Name to the module it lives in, and its name there where that differs.
_HOMES = {
    "Budget": "flyweight.sensitivity",
    "Checkpoint": "flyweight.checkpoint",
    "Cost": "flyweight.graph",
    "FlyweightError": "flyweight.errors",
    "ModelGraph": "flyweight.graph",
    "ModelCard": "flyweight.exporting.package",
    "Pace": "flyweight.sensitivity",
    "PruningPlan": "flyweight.pruning",
    "RepairReport": "flyweight.pruning.repair",
    "RepairSettings": "flyweight.pruning.repair",
    "Sensitivity": "flyweight.sensitivity",
    "create": "flyweight.zoo",
    "export": "flyweight.exporting.onnx:to_onnx",
    "load": "flyweight.checkpoint",
    "measure": "flyweight.bench.measure",
    "plan": "flyweight.pruning",
    "plan_globally": "flyweight.pruning",
    "prune": "flyweight.pruning",
    "prune_": "flyweight.pruning",
    "ratios_per_step": "flyweight.pruning",
    "repair": "flyweight.pruning.repair",
    "repair_": "flyweight.pruning.repair",
    "save": "flyweight.checkpoint",
    "scan": "flyweight.sensitivity",
    "taylor": "flyweight.pruning",
    "trace": "flyweight.graph",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        module, _, attribute = _HOMES[name].partition(":")
        return getattr(import_module(module), attribute or name)
    raise AttributeError(f"module 'flyweight' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
