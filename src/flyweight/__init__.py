"""Make trained vision models small and fast under a budget, and prove it.

Names load on first use, so that `import flyweight` costs nothing.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Checkpoint": "flyweight.checkpoint",
    "Cost": "flyweight.graph",
    "FlyweightError": "flyweight.errors",
    "ModelGraph": "flyweight.graph",
    "PruningPlan": "flyweight.pruning",
    "create": "flyweight.zoo",
    "export": "flyweight.exporting.onnx",
    "load": "flyweight.checkpoint",
    "measure": "flyweight.bench.measure",
    "plan": "flyweight.pruning",
    "prune": "flyweight.pruning",
    "save": "flyweight.checkpoint",
    "trace": "flyweight.graph",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'flyweight' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
