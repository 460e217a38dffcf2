"""Cuts of modules in place: narrower tensors, and updated attributes that repeat their sizes."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from flyweight.graph.groups import Member
from flyweight.graph.stored import Holder, held_tensors, renewed

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

    A narrower tensor keeps all else of the one that it replaces: layout in memory, type, device,
    class, whether it is trained, and the attributes set on it. Its gradient is cut as it is.

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
    touched: dict[int, tuple[nn.Module, _Shapes]] = {}
    replaced = []
    for name, tensor, _ in places:
        if any(removed.get(name, {}).values()):
            narrow = _narrow(tensor, removed[name], order=name in orders)
            replaced.append(Replaced(tensor, narrow, removed[name]))
            for holder in holders[id(tensor)]:
                _, shapes = touched.setdefault(id(holder.module), (holder.module, {}))
                shapes[holder.attribute] = tuple(tensor.shape), tuple(narrow.shape)
                holder.put(narrow)
    for module, shapes in [*touched.values(), *_parametrized(model, touched)]:
        keep_attributes_true(module, shapes)
    return replaced


def _narrow(tensor: Tensor, gone: Mapping[int, tuple[int, ...]], *, order: bool) -> Tensor:
    narrow = narrowed(tensor, gone)
    if order and not narrow.is_meta:
        narrow = narrow.argsort().argsort().to(narrow.dtype)
    new = renewed(tensor, narrow)
    for name, mark in vars(tensor).items():
        # A mask or a second gradient that is kept beside a parameter.
        if isinstance(mark, Tensor) and mark.shape == tensor.shape:
            setattr(new, name, renewed(mark, narrowed(mark, gone)))
    if tensor.is_leaf and tensor.grad is not None:
        new.grad = narrowed(tensor.grad, gone)
    return new


def zero_reads(
    model: nn.Module, cuts: Iterable[tuple[tuple[Member, ...], int, Sequence[int]]]
) -> None:
    """Zero channels of `model` where they are read.

    Args:
        model: Changed in place: tensors are replaced, none is written into.
        cuts: Members of a group, its channels, and the channels to zero.
    """
    holders: dict[str, tuple[Tensor, list[Holder]]] = {}
    for name, tensor, holder in held_tensors(model):
        holders.setdefault(name, (tensor, []))[1].append(holder)
    for members, channels, gone in cuts:
        for member in members:
            if member.role == "consumes" and len(gone):
                tensor, places = holders[member.tensor]
                rows = member.positions(channels)[list(gone)].ravel()
                index = torch.as_tensor(rows, device=tensor.device)
                zeroed = tensor.detach().index_fill(member.axis, index, 0)
                kept = nn.Parameter(zeroed, False) if isinstance(tensor, nn.Parameter) else zeroed
                holders[member.tensor] = (kept, places)
                for place in places:
                    place.put(kept)


def narrowed(tensor: Tensor, axes: Mapping[int, tuple[int, ...]]) -> Tensor:
    """Return a copy of `tensor`, in its layout, without the indices that leave its axes."""
    order = _memory_order(tensor)
    if tensor.is_meta:
        shape = [size - len(axes.get(axis, ())) for axis, size in enumerate(tensor.shape)]
        return torch.empty_permuted(shape, order, dtype=tensor.dtype, device="meta")
    narrow = tensor.detach()
    # Rows first: they are copied whole, and less is left to pick from.
    for axis, gone in sorted(axes.items()):
        keep = np.delete(np.arange(narrow.shape[axis]), gone)
        index = torch.tensor(keep, dtype=torch.int64, device=narrow.device)
        narrow = narrow.index_select(axis, index)
    if order == sorted(order):
        return narrow.contiguous()
    back = sorted(range(len(order)), key=order.__getitem__)
    return narrow.permute(order).contiguous().permute(back)


def _memory_order(tensor: Tensor) -> list[int]:
    """Return the axes of a tensor from the outermost in memory to the innermost."""
    axes = list(range(tensor.ndim))
    if tensor.layout is not torch.strided or 0 in tensor.stride():
        return axes
    # The stride of an axis of one says nothing, except that channels_last puts it innermost.
    strides = tensor.stride()
    return sorted(axes, key=lambda axis: -strides[axis])


_Shapes = dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
"""Attribute of a module to the shape of its tensor before a cut and after it."""
_WEIGHTS = ("weight", "weight_orig", "weight_v", "running_mean", "running_var")
"""Attributes whose shape a layer repeats, the surest first. The second belongs to a layer
whose weight a hook computes of it (spectral norm, masks), the third to one with weight norm."""
_SIZES = {
    "out_features": 0,
    "in_features": -1,
    "in1_features": 1,
    "in2_features": 2,
    "num_features": 0,
    "num_channels": 0,
    "num_parameters": 0,
    "num_embeddings": 0,
    "embedding_dim": -1,
}
"""Attributes that repeat a size of the weight, with its axis."""
COMPUTING_HOOKS = (BasePruningMethod, SpectralNorm, WeightNorm)
"""Hooks of PyTorch that set a weight, as a plain attribute, before the layer runs."""


def keep_attributes_true(module: nn.Module, shapes: _Shapes) -> None:
    """Rewrite the attributes that repeat a weight's shape, where the module has them.

    Args:
        module: Changed in place.
        shapes: Of its tensors that were cut.
    """
    if isinstance(module, nn.RNNBase):
        # It runs on a list of its own of the weights it also holds as parameters.
        module._flat_weights = [getattr(module, name) for name in module._flat_weights_names]
        return
    _compute_weights(module)
    vectors = (name for name in module._buffers if name in shapes and len(shapes[name][0]) == 1)
    weight = next((name for name in (*_WEIGHTS, *vectors) if name in shapes), None)
    if weight is None:
        return
    old, new = shapes[weight]
    if hasattr(module, "groups") and hasattr(module, "in_channels"):
        _true_convolution(module, old, new)
        return
    for name, axis in _SIZES.items():
        # Another value is a size of something else.
        if axis < len(old) and getattr(module, name, None) == old[axis]:
            setattr(module, name, new[axis])
    if getattr(module, "normalized_shape", None) == old:
        module.normalized_shape = new  # type: ignore[assignment]


def _compute_weights(module: nn.Module) -> None:
    """Compute the weights that hooks set, so that nobody finds the one before the cut."""
    training, module.training = module.training, False  # Spectral norm estimates in training.
    try:
        with torch.no_grad():
            for hook in module._forward_pre_hooks.values():
                if isinstance(hook, COMPUTING_HOOKS):
                    hook(module, ())
    except RuntimeError:
        return  # Sizes that do not fit each other fail when the layer runs, with its name.
    finally:
        module.training = training


def _parametrized(
    model: nn.Module, touched: Mapping[int, tuple[nn.Module, _Shapes]]
) -> Iterator[tuple[nn.Module, _Shapes]]:
    """Yield the modules whose parametrized tensors were cut, with the shapes of these."""
    if not any(isinstance(module, ParametrizationList) for module, _ in touched.values()):
        return
    for module in model.modules():
        if is_parametrized(module):
            shapes: _Shapes = {}
            for name, computed in module.parametrizations.items():  # type: ignore[operator,union-attr]
                originals = touched.get(id(computed), (computed, {}))[1].values()
                if originals:
                    shapes[name] = max(originals, key=lambda pair: math.prod(pair[0]))
            yield module, shapes


def _true_convolution(module: nn.Module, old: tuple[int, ...], new: tuple[int, ...]) -> None:
    held = (module.out_channels, module.in_channels, module.groups)
    if len(old) < 3 or not all(isinstance(size, int) for size in held):
        return
    made, read, groups = (int(size) for size in held)  # type: ignore[arg-type]
    transposed = bool(getattr(module, "transposed", False))
    if (old[0], old[1] * groups) != ((read, made) if transposed else (made, read)):
        return  # The weight is laid out in a way of its own.
    if groups > 1 and old[1] == 1 and read == groups:  # depthwise
        multiplier = max(made // groups, 1)
        groups = new[0] if transposed else new[0] // multiplier
        module.groups = groups  # type: ignore[assignment]
    made, read = (new[1] * groups, new[0]) if transposed else (new[0], new[1] * groups)
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
