"""Kinds of transforms that a checkpoint can hold: one table, and how each kind is applied again."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from flyweight.errors import CheckpointError
from flyweight.origin import (
    EPSILONS_VERSION,
    PRUNE_VERSION,
    QUANTIZE_VERSION,
    REPAIR_VERSION,
    REWRITE_VERSION,
    Transform,
)
from flyweight.pruning.plans import PruningPlan
from flyweight.pruning.surgery import prune_
from flyweight.quantization.network import quantize_
from flyweight.quantization.quantization_plan import QuantizationPlan
from flyweight.quantization.rewriting import rewrite_
from flyweight.untrusted.json_values import parse_json


@dataclass(frozen=True)
class TransformKind:
    """How this version of flyweight reads and applies one kind of transform.

    Attributes:
        version: The newest version of the data that is read; older ones are read too.
        check: Takes JSON text, returns it in today's form; raises ValueError, TypeError, KeyError
            or a FlyweightError where it is damaged.
        apply: Changes the structure of a network in place according to the JSON text; weights
            follow.
    """

    version: int
    check: Callable[[str], str]
    apply: Callable[[nn.Module, str], None]


def _check_mapping(text: str) -> str:
    if not text.startswith("{"):
        raise TypeError("no mapping")
    return text


def _weights_only(model: nn.Module, text: str) -> None:
    """Do nothing: this kind changes weights and no structure, and the file has the weights."""


def _check_epsilons(text: str) -> str:
    for path, value in parse_json(_check_mapping(text)).items():
        if not isinstance(value, float) or not 0 <= value < math.inf:
            raise ValueError(f"the epsilon of '{path}' is {value!r}")
    return text


def _set_epsilons(model: nn.Module, text: str) -> None:
    """Set the epsilons of normalisations, which are attributes and not in the weights."""
    for path, value in parse_json(text).items():
        module: Any = dict(model.named_modules()).get(path)
        if not isinstance(getattr(module, "eps", 0), float | None):
            raise ValueError(f"the network has no epsilon at '{path}'.")
        module.eps = value


def _check_factors(text: str) -> str:
    for path, factor in parse_json(_check_mapping(text)).items():
        if isinstance(factor, bool) or not isinstance(factor, int) or factor < 1:
            raise ValueError(f"the stride of '{path}' is {factor!r}")
    return text


TRANSFORMS: Mapping[str, TransformKind] = {
    "prune": TransformKind(
        version=PRUNE_VERSION,
        check=lambda text: PruningPlan.from_json(text).to_json(),
        apply=lambda model, text: prune_(model, PruningPlan.from_json(text)),
    ),
    "repair": TransformKind(version=REPAIR_VERSION, check=_check_mapping, apply=_weights_only),
    "epsilons": TransformKind(EPSILONS_VERSION, check=_check_epsilons, apply=_set_epsilons),
    "rewrite": TransformKind(
        version=REWRITE_VERSION,
        check=_check_factors,
        apply=lambda model, text: rewrite_(model, parse_json(text)),
    ),
    "quantize": TransformKind(
        version=QUANTIZE_VERSION,
        check=lambda text: QuantizationPlan.from_json(text).to_json(),
        apply=lambda model, text: quantize_(model, QuantizationPlan.from_json(text)),
    ),
}
"""Every kind by its name in a checkpoint."""


def require_known(transforms: Sequence[Transform], path: str | Path) -> tuple[Transform, ...]:
    """Return the transforms of a file in today's form.

    Args:
        transforms: As the file has them.
        path: The file, for the error message.

    Raises:
        CheckpointError: A kind is unknown, or its version is newer than what is read here.
        Exception: What `TransformKind.check` raises for damaged data.
    """
    checked = []
    for transform in transforms:
        kind = TRANSFORMS.get(transform.kind)
        if kind is None or not 1 <= transform.version <= kind.version:
            known = ", ".join(f"'{name}' up to {one.version}" for name, one in TRANSFORMS.items())
            raise CheckpointError(
                "The transforms of a checkpoint must be of kinds and versions that this version "
                f"of flyweight reads. Received '{transform.kind}' of version {transform.version} "
                f"in '{path}'. Read here: {known}. Use the version of flyweight that wrote it."
            )
        checked.append(Transform(transform.kind, kind.version, kind.check(transform.text)))
    return tuple(checked)


def apply_transform(model: nn.Module, transform: Transform) -> None:
    """Change the structure of `model` in place by a transform from `require_known`."""
    TRANSFORMS[transform.kind].apply(model, transform.text)
