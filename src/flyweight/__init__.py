"""Make trained vision models small and fast under a budget, and prove it.

Names load on first use, so that `import flyweight` costs nothing.
"""

from typing import TYPE_CHECKING

from flyweight.on_demand import names_on_demand

if TYPE_CHECKING:  # For editors and type checkers; `_HOMES` has the same names at run time.
    from flyweight.checkpoint import Checkpoint as Checkpoint
    from flyweight.checkpoint import load as load
    from flyweight.checkpoint import save as save
    from flyweight.config.budget import Budget as Budget
    from flyweight.distillation.distill import distill as distill
    from flyweight.distillation.distiller import Distiller as Distiller
    from flyweight.errors import FlyweightError as FlyweightError
    from flyweight.exporting.model_card import ModelCard as ModelCard
    from flyweight.exporting.onnx import to_onnx as export  # noqa: F401 - another name there
    from flyweight.graph import Cost as Cost
    from flyweight.graph import ModelGraph as ModelGraph
    from flyweight.graph import trace as trace
    from flyweight.measuring.measure import measure as measure
    from flyweight.planning.ranking import plan_globally as plan_globally
    from flyweight.planning.schedule import ratios_per_step as ratios_per_step
    from flyweight.pruning import PruningPlan as PruningPlan
    from flyweight.pruning import plan as plan
    from flyweight.pruning import prune as prune
    from flyweight.pruning import prune_ as prune_
    from flyweight.pruning import taylor as taylor
    from flyweight.pruning.repair.repair import RepairReport as RepairReport
    from flyweight.pruning.repair.repair import RepairSettings as RepairSettings
    from flyweight.pruning.repair.repair import repair as repair
    from flyweight.pruning.repair.repair import repair_ as repair_
    from flyweight.quantization.quantization_plan import QuantizationPlan as QuantizationPlan
    from flyweight.quantization.quantize import QuantConfig as QuantConfig
    from flyweight.quantization.quantize import quantize as quantize
    from flyweight.sensitivity import FastScanSettings as FastScanSettings
    from flyweight.sensitivity import FastScanSettings as Pace  # noqa: F401 - its name in 0.1.0
    from flyweight.sensitivity import Sensitivity as Sensitivity
    from flyweight.sensitivity import scan as scan
    from flyweight.zoo import create as create

__version__ = "0.1.0"

# Public name to the module it lives in and its name there.
_HOMES = {
    "Budget": "flyweight.config.budget:Budget",
    "Checkpoint": "flyweight.checkpoint:Checkpoint",
    "Cost": "flyweight.graph:Cost",
    "Distiller": "flyweight.distillation.distiller:Distiller",
    "FlyweightError": "flyweight.errors:FlyweightError",
    "ModelGraph": "flyweight.graph:ModelGraph",
    "ModelCard": "flyweight.exporting.model_card:ModelCard",
    "FastScanSettings": "flyweight.sensitivity:FastScanSettings",
    "Pace": "flyweight.sensitivity:FastScanSettings",  # its name in 0.1.0
    "PruningPlan": "flyweight.pruning:PruningPlan",
    "QuantConfig": "flyweight.quantization.quantize:QuantConfig",
    "QuantizationPlan": "flyweight.quantization.quantization_plan:QuantizationPlan",
    "RepairReport": "flyweight.pruning.repair.repair:RepairReport",
    "RepairSettings": "flyweight.pruning.repair.repair:RepairSettings",
    "Sensitivity": "flyweight.sensitivity:Sensitivity",
    "create": "flyweight.zoo:create",
    "distill": "flyweight.distillation.distill:distill",
    "export": "flyweight.exporting.onnx:to_onnx",
    "load": "flyweight.checkpoint:load",
    "measure": "flyweight.measuring.measure:measure",
    "plan": "flyweight.pruning:plan",
    "plan_globally": "flyweight.planning.ranking:plan_globally",
    "prune": "flyweight.pruning:prune",
    "prune_": "flyweight.pruning:prune_",
    "quantize": "flyweight.quantization.quantize:quantize",
    "ratios_per_step": "flyweight.planning.schedule:ratios_per_step",
    "repair": "flyweight.pruning.repair.repair:repair",
    "repair_": "flyweight.pruning.repair.repair:repair_",
    "save": "flyweight.checkpoint:save",
    "scan": "flyweight.sensitivity:scan",
    "taylor": "flyweight.pruning:taylor",
    "trace": "flyweight.graph:trace",
}

__all__ = sorted(_HOMES)


__getattr__ = names_on_demand(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
