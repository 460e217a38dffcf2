"""Interception of every operation of a running module, whole and by name.

Everything here holds for the calling thread alone: other threads may run networks meanwhile.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import nn
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode


class Dispatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A mode that sees operations; in inference mode it does before PyTorch takes them apart."""

    def __new__(cls, *_: Any, **__: Any) -> "Dispatch":
        """Return a mode that TorchDynamo does not compile, where that is loaded."""
        if _COMPILER in sys.modules:
            cls = _uncompiled(cls)  # type: ignore[arg-type]
        return super().__new__(cls)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Spare the import of TorchDynamo, which takes longer than most traces."""
        return False


_COMPILER = "torch._dynamo"


@cache
def _uncompiled(kind: type[Dispatch]) -> type[Dispatch]:
    # A function under `torch.compile` would compile the mode with it, which takes seconds.
    disabled = torch.compiler.disable(kind.__torch_dispatch__)  # type: ignore[no-untyped-call]
    return type(kind.__name__, (kind,), {"__torch_dispatch__": disabled})


@cache
def name_of(func: OpOverload) -> str:
    """Return an operation's ATen name; one that writes in place has the name without the mark."""
    name: str = func._schema.name.split("::")[-1]
    return name if name.endswith("__") else name.removesuffix("_")


_REQUIRED = object()


@cache
def _parameters_of(func: OpOverload) -> tuple[tuple[str, Any], ...]:
    """Return names and defaults of an operation's parameters; reading a schema is slow."""
    return tuple(
        (one.name, one.default_value if one.has_default_value() else _REQUIRED)
        for one in func._schema.arguments
    )


def bound(func: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call by their names in the schema, defaults included."""
    named: dict[str, Any] = {}
    for place, (name, default) in enumerate(_parameters_of(func)):
        if place < len(args):
            named[name] = args[place]
        elif name in kwargs:
            named[name] = kwargs[name]
        elif default is not _REQUIRED:
            named[name] = default
    return named


_FUSING = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)
"""Modules that run as one fused operation in inference, which hides their channels."""


class _Overriding(TorchFunctionMode):
    """A mode that changes nothing. Its presence makes the modules of `_FUSING` run plainly.

    They fuse only where no tensor overrides torch functions, and an active mode counts as that. The
    switch that PyTorch documents (`torch.backends.mha`) would hold for all threads.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


@contextmanager
def plain_attention(*models: nn.Module) -> Iterator[None]:
    """Keep attention modules of `models` from fusing into one operation, in this thread alone."""
    if any(isinstance(module, _FUSING) for model in models for module in model.modules()):
        with _Overriding():
            yield
    else:
        yield


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Put models in evaluation mode without gradients, and every module back in its own mode.

    Attention does not fuse meanwhile. What the forward of a model writes into itself stays there,
    and tensors made in inference mode refuse training: of a user's model run a copy in here.
    """
    modes = [(module, module.training) for model in models for module in model.modules()]
    for model in models:
        model.eval()
    try:
        with plain_attention(*models), torch.inference_mode():
            yield
    finally:
        for module, training in modes:
            module.training = training
