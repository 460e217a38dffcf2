"""Where a model came from: enough to build it again without its pickle.

`zoo.create` and `fw.prune` leave this note on the module they return, so that `fw.save` can write
a checkpoint that rebuilds itself. The note is a frozen value; a module without one is simply a
module that `fw.save` must be told about.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

_ATTRIBUTE = "_flyweight_lineage"


@dataclass(frozen=True)
class Origin:
    """How to build a module again.

    Attributes:
        architecture: A name of `zoo.SPECS`.
        arguments: Keyword arguments of its builder, JSON values only.
        plans: The pruning plans that were applied since, in order, each as its JSON text.
    """

    architecture: str
    arguments: dict[str, Any] = field(default_factory=dict)
    plans: tuple[str, ...] = ()

    def then(self, plan: str) -> "Origin":
        """Return the lineage after one more plan."""
        return replace(self, plans=(*self.plans, plan))


def origin_of(model: nn.Module) -> Origin | None:
    """Return the note left on `model`, if there is one."""
    note = getattr(model, _ATTRIBUTE, None)
    return note if isinstance(note, Origin) else None


def note_origin(model: nn.Module, origin: Origin) -> None:
    """Leave `lineage` on `model`."""
    setattr(model, _ATTRIBUTE, origin)
