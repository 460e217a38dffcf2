"""Comparison of the tensors of a file with those of a network, before the network takes memory.

A checkpoint names its network and the arguments. Networks of the zoo are built without memory, but
those of other libraries may hold constants that no file has, so they are built in memory, and a
file of kilobytes could ask for one of gigabytes.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from flyweight.errors import CheckpointError
from flyweight.origin import Origin
from flyweight.transform_kinds import apply_transform
from flyweight.zoo import create

Shapes = Mapping[str, tuple[int, ...]]

_FREE_BYTES = 2**28
"""A network of up to this size is built, whatever the file holds."""
_MOST_TIMES = 100
"""A network may be this many times larger before its transforms than the tensors in the file."""


def require_fit(model: nn.Module, found: Shapes, path: object) -> None:
    """Check that the tensors of a file are those of `model`, by name and shape.

    Raises:
        CheckpointError: Some are not; the first difference is named.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in unique_tensors(model)}
    missing = sorted(set(wanted) - set(found))
    extra = sorted(set(found) - set(wanted))
    shapes = [name for name in wanted if name in found and wanted[name] != found[name]]
    if not (missing or extra or shapes):
        return
    if shapes:
        name = shapes[0]
        first = f"'{name}' has shape {found[name]} where {wanted[name]} is needed"
    else:
        first = f"'{missing[0]}' is missing" if missing else f"'{extra[0]}' is unknown to the model"
    count = len(missing) + len(extra) + len(shapes)
    raise CheckpointError(
        f"A checkpoint must fit its model tensor by tensor. Received '{path}' with {count} "
        f"difference{'s' if count > 1 else ''}, the first: {first}. "
        "Use the checkpoint of this very architecture."
    )


def unique_tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Return the stored tensors of `model`; tied ones once, under their first name."""
    seen: set[int] = set()
    unique = []
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            unique.append((name, tensor))
    return unique


def affordable(origin: Origin, found: Shapes, path: object) -> AbstractContextManager[Any]:
    """Check that a network of another library fits the tensors of a file; allocate nothing.

    Args:
        origin: The network, its arguments and transforms.
        found: Shapes of the tensors in the file.
        path: The file, for error messages.

    Returns:
        A context to build the network in. Where a library computes with values while it builds a
        network, it cannot be built without memory; then the context bounds the memory.

    Raises:
        CheckpointError: The network does not fit the file.
        Exception: What `transform_kinds.apply_transform` raises.
    """
    most = max(_FREE_BYTES, _MOST_TIMES * 4 * sum(map(math.prod, found.values())))
    try:
        with torch.device("meta"):
            model = create(origin.architecture, **origin.arguments)
    except Exception:  # noqa: BLE001 - libraries fail in their own ways, and the next attempt reports it
        return _MemoryLimit(most, path)
    tensors = [tensor for _, tensor in unique_tensors(model)]
    if sum(tensor.numel() * tensor.itemsize for tensor in tensors) > most:
        raise _too_large(most, path)
    for transform in origin.transforms:
        apply_transform(model, transform)
    require_fit(model, found, path)
    return nullcontext()


class _MemoryLimit(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses new tensors once those made within the context exceed a number of bytes."""

    def __init__(self, most: int, path: object) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._left, self._most, self._path = most, most, path

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        given = kwargs or {}
        tensors = [item for item in (*args, *given.values()) if isinstance(item, Tensor)]
        if not tensors and "device" in {argument.name for argument in func._schema.arguments}:
            planned = func(*args, **{**given, "device": torch.device("meta"), "pin_memory": None})
            self._left -= planned.numel() * planned.itemsize
            if self._left < 0:
                raise _too_large(self._most, self._path)
        return func(*args, **given)


def _too_large(most: int, path: object) -> CheckpointError:
    return CheckpointError(
        "A checkpoint must hold the tensors of its network. Received "
        f"'{path}', whose network takes more than {most >> 20:,} MiB before any of them is read. "
        "Use the checkpoint of this very architecture."
    )
