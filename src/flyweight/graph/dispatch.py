"""Seeing every operation of a running module, whole and by name."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode


class Dispatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A mode that sees operations; in inference mode it does before PyTorch takes them apart."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Spare the import of TorchDynamo, which takes longer than most traces."""
        return False


def name_of(func: OpOverload) -> str:
    """Return an operation's ATen name; an in-place one has the name of its twin."""
    name = func._schema.name.split("::")[-1]
    return name if name.endswith("__") else name.removesuffix("_")


def bound(func: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call by their names in the schema, defaults included."""
    named: dict[str, Any] = {}
    for place, argument in enumerate(func._schema.arguments):
        if place < len(args):
            named[argument.name] = args[place]
        elif argument.name in kwargs:
            named[argument.name] = kwargs[argument.name]
        elif argument.has_default_value():
            named[argument.name] = argument.default_value
    return named


@contextmanager
def plain_attention() -> Iterator[None]:
    """Keep `nn.MultiheadAttention` from fusing into one operation that hides its channels."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Put models in evaluation mode without gradients, and every module back in its own."""
    modes = [(module, module.training) for model in models for module in model.modules()]
    for model in models:
        model.eval()
    try:
        with plain_attention(), torch.inference_mode():
            yield
    finally:
        for module, training in modes:
            module.training = training
