"""Origin of a module: its architecture and the transforms that were applied to it, in order.

`zoo.create`, `fw.prune` and `fw.repair` leave this note on the module that they return, so that
`fw.save` can write a file from which the module is built again without a pickle. The note is a
frozen value; a module without a note cannot be saved by `fw.save`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from torch import nn
from torch.fx import GraphModule
from torch.fx.graph_module import _USER_PRESERVED_ATTRIBUTES_KEY

PRUNE_VERSION = 1
"""Version of the data of the transform "prune", which is a plan with a version of its own."""
REPAIR_VERSION = 1
"""Version of the data of the transform "repair"."""
EPSILONS_VERSION = 1
"""Version of the data of the transform "epsilons": path of a normalisation to its epsilon."""

QUANTIZE_VERSION = 1
"""Version of the data of the transform "quantize", which is a plan with a version of its own."""

REWRITE_VERSION = 1
"""Version of the data of the transform "rewrite": path of a module to its stride."""

_ATTRIBUTE = "_flyweight_origin"


@dataclass(frozen=True)
class Transform:
    """One change that was made to a network after it was built.

    Attributes:
        kind: What was done: "prune", "repair", "epsilons", "rewrite" or "quantize";
            `transform_kinds.TRANSFORMS` lists the kinds.
        version: Version of the format of `text`.
        text: What was done, as JSON text. Text, because the note is copied with its module, and a
            plan holds thousands of numbers.
    """

    kind: str
    version: int
    text: str

    @classmethod
    def of(cls, kind: str, version: int, data: Mapping[str, Any]) -> Self:
        """Return the transform that JSON values describe.

        Raises:
            ValueError: `data` holds something else, or a number that is not finite.
        """
        return cls(kind, version, json.dumps(data, allow_nan=False))

    @property
    def data(self) -> Any:
        """What was done, as JSON values."""
        return json.loads(self.text)


@dataclass(frozen=True)
class Parent:
    """A network from which another network was made.

    Attributes:
        role: What it was used as: "dense" (the network before the cut), "float" (the network before
            quantization), "start" (weights that training started from), "teacher".
        digest: Digest of its tensors, `digests.digest_of_weights(model.state_dict())`.
    """

    role: str
    digest: str


@dataclass(frozen=True)
class Origin:
    """How to build a module again, and what it was made from.

    Attributes:
        architecture: A name of `zoo.SPECS`, of another library, or of the user's own network.
        arguments: Keyword arguments of its builder, JSON values only.
        transforms: What was done to the network since, in order.
        parents: The networks that it was made from, as far as they were noted.
    """

    architecture: str
    arguments: dict[str, Any] = field(default_factory=dict)
    transforms: tuple[Transform, ...] = ()
    parents: tuple[Parent, ...] = ()

    @property
    def plans(self) -> tuple[str, ...]:
        """The pruning plans that were applied, in order, each as its JSON text."""
        return tuple(one.text for one in self.transforms if one.kind == "prune")

    def then(self, transform: Transform) -> "Origin":
        """Return the origin after one more transform."""
        return replace(self, transforms=(*self.transforms, transform))

    def before_last(self, kind: str) -> "Origin":
        """Return the origin before the last transform of a kind and all that followed it.

        Raises:
            ValueError: There is no transform of this kind.
        """
        kinds = [one.kind for one in self.transforms]
        last = len(kinds) - 1 - kinds[::-1].index(kind)
        return replace(self, transforms=self.transforms[:last])


def origin_of(model: nn.Module) -> Origin | None:
    """Return the note left on `model`, or None."""
    note = getattr(model, _ATTRIBUTE, None)
    return note if isinstance(note, Origin) else None


def note_origin(model: nn.Module, origin: Origin) -> None:
    """Leave `origin` on `model`."""
    setattr(model, _ATTRIBUTE, origin)
    if isinstance(model, GraphModule):
        # `copy.deepcopy` forgets the attributes of these, except those that are listed.
        kept = vars(model).setdefault("meta", {}).setdefault(_USER_PRESERVED_ATTRIBUTES_KEY, {})
        kept[_ATTRIBUTE] = origin


def note_transform(model: nn.Module, transform: Transform) -> None:
    """Add a transform to the note on `model`; a module without a note stays without one."""
    origin = origin_of(model)
    if origin is not None:
        note_origin(model, origin.then(transform))


def note_parent(model: nn.Module, parent: Parent) -> None:
    """Add a parent to the note on `model`; a module without a note stays without one."""
    origin = origin_of(model)
    if origin is not None and parent not in origin.parents:
        note_origin(model, replace(origin, parents=(*origin.parents, parent)))
