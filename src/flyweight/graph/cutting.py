"""Cuts of modules in place: narrower tensors, and updated attributes that repeat their sizes."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from flyweight.graph.stored import Holder, held_tensors

Removed = Mapping[str, Mapping[int, tuple[int, ...]]]
"""Tensor name to axis to the indices that leave."""


@dataclass(frozen=True, eq=False)
class Replaced:
    """A tensor of a module and the narrower one that took its place.

    Attributes:
        old: Before the cut.
        new: After it.
        removed: The indices that left every axis.
    """

    old: Tensor
    new: Tensor
    removed: Mapping[int, tuple[int, ...]]


def cut_tensors(
    model: nn.Module, removed: Removed, orders: frozenset[str] = frozenset()
) -> list[Replaced]:
    """Take `removed` out of the tensors of `model`, wherever they are held.

    Args:
        model: Changed in place.
        removed: What leaves.
        orders: Names of those that hold a permutation, to be one of what stays.

    Returns:
        What was replaced by what.
    """
    places = list(held_tensors(model))
    holders: dict[int, list[Holder]] = {}
    for _, tensor, holder in places:
        holders.setdefault(id(tensor), []).append(holder)
    touched: dict[int, nn.Module] = {}
    replaced = []
    for name, tensor, _ in places:
        if name in removed:
            narrow = narrowed(tensor, removed[name])
            if name in orders and not narrow.is_meta:
                narrow = narrow.argsort().argsort().to(narrow.dtype)
            if isinstance(tensor, nn.Parameter):
                narrow = nn.Parameter(narrow, tensor.requires_grad)
            replaced.append(Replaced(tensor, narrow, removed[name]))
            for holder in holders[id(tensor)]:
                touched[id(holder.module)] = holder.module
                holder.put(narrow)
    for module in touched.values():
        _keep_attributes_true(module)
    return replaced


def narrowed(tensor: Tensor, axes: Mapping[int, tuple[int, ...]]) -> Tensor:
    """Return a copy of `tensor` without the indices that leave its axes."""
    if tensor.is_meta:
        shape = [size - len(axes.get(axis, ())) for axis, size in enumerate(tensor.shape)]
        return torch.empty(shape, dtype=tensor.dtype, device="meta")
    narrow = tensor.detach()
    for axis, gone in axes.items():
        keep = np.delete(np.arange(narrow.shape[axis]), gone)
        index = torch.tensor(keep, dtype=torch.int64, device=narrow.device)
        narrow = narrow.index_select(axis, index)
    return narrow.contiguous()


def _keep_attributes_true(module: nn.Module) -> None:
    """Rewrite the attributes that repeat a weight's shape, where the module has them."""
    if isinstance(module, nn.RNNBase):
        # It runs on a list of its own of the weights it also holds as parameters.
        module._flat_weights = [getattr(module, name) for name in module._flat_weights_names]
        return
    weight: Tensor | None = module._parameters.get("weight")
    if weight is None:
        weight = next((t for t in module._buffers.values() if t is not None and t.ndim == 1), None)
    if weight is None:
        return
    shape = tuple(weight.shape)
    if hasattr(module, "groups") and hasattr(module, "in_channels"):
        _true_convolution(module, shape)
        return
    values = {
        "out_features": shape[0],
        "in_features": shape[-1],
        "num_features": shape[0],
        "num_channels": shape[0],
        "num_parameters": shape[0],
        "embedding_dim": shape[-1],
    }
    for name, value in values.items():
        if isinstance(getattr(module, name, None), int):
            setattr(module, name, value)
    if isinstance(getattr(module, "normalized_shape", None), tuple):
        module.normalized_shape = shape  # type: ignore[assignment]


def _true_convolution(module: nn.Module, shape: tuple[int, ...]) -> None:
    transposed = bool(getattr(module, "transposed", False))
    groups = int(module.groups)  # type: ignore[arg-type]
    depthwise = groups > 1 and shape[1] == 1 and int(module.in_channels) == groups  # type: ignore[arg-type]
    if depthwise:
        multiplier = max(int(module.out_channels) // groups, 1)  # type: ignore[arg-type]
        groups = shape[0] if transposed else shape[0] // multiplier
        module.groups = groups  # type: ignore[assignment]
    made, read = (shape[1] * groups, shape[0]) if transposed else (shape[0], shape[1] * groups)
    module.out_channels, module.in_channels = made, read  # type: ignore[assignment]


def set_numbers(model: nn.Module, numbers: Mapping[str, int]) -> None:
    """Set whole numbers that the code of modules reads, for example `blocks.0.attn.num_heads`.

    Args:
        model: Changed in place.
        numbers: Attribute paths to values; an item of a list or tuple is `path.attribute[index]`.

    Raises:
        AttributeError: There is no such module, or it has no such number.
    """
    for path, value in numbers.items():
        owner, _, attribute = path.rpartition(".")
        module = model.get_submodule(owner)
        if attribute not in numbers_in(module):
            raise AttributeError(f"'{owner}' has no whole number '{attribute}'")
        attribute, _, index = attribute.removesuffix("]").partition("[")
        held = getattr(module, attribute)
        if index:
            items = [value if place == int(index) else item for place, item in enumerate(held)]
            setattr(module, attribute, type(held)(items))
        else:
            setattr(module, attribute, value)


def numbers_in(module: nn.Module) -> dict[str, int]:
    """Return the whole numbers above one in a module's own attributes, by `set_numbers` name."""
    found: dict[str, int] = {}
    for attribute, value in vars(module).items():
        if attribute.startswith("_"):
            continue
        items = {attribute: value}
        if type(value) in (list, tuple):
            items = {f"{attribute}[{place}]": item for place, item in enumerate(value)}
        found.update({key: item for key, item in items.items() if type(item) is int and item > 1})
    return found
