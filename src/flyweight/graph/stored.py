"""The tensors that a module holds: parameters, buffers, and tensors kept as plain attributes."""

import copy
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import _lru_cache_wrapper, lru_cache, partial
from pickle import PickleError
from types import FunctionType, MethodType
from typing import Any

from torch import Size, Tensor, device, dtype, nn, strided
from torch.fx import GraphModule
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from flyweight.graph.closures import (
    WRITABLE,
    blank_twin,
    compiled_of,
    fill,
    functions_that_hold,
)

_WRAPPERS = {
    "torch._dynamo.eval_frame.OptimizedModule": "_orig_mod",
    "torch.nn.parallel.data_parallel.DataParallel": "module",
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
}
"""Full name of a class that runs another module unchanged, and the attribute that holds it."""


def wrapping_attribute(module: nn.Module) -> str | None:
    """Return the attribute of a wrapper that holds the module inside; of other modules nothing.

    Wrappers are those of `torch.compile`, `DataParallel` and `DistributedDataParallel`.
    """
    for kind in type(module).__mro__:
        attribute = _WRAPPERS.get(f"{kind.__module__}.{kind.__qualname__}")
        # A subclass whose own code runs around the module is no mere wrapper.
        if attribute is not None and type(module).forward is kind.forward:  # type: ignore[attr-defined]
            return attribute
    return None


@dataclass(frozen=True, eq=False)
class Holder:
    """A place in a module that holds a tensor."""

    module: nn.Module
    attribute: str

    def put(self, tensor: Tensor) -> None:
        """Hold `tensor` instead."""
        for table in (self.module._parameters, self.module._buffers):
            if self.attribute in table:
                table[self.attribute] = tensor  # type: ignore[assignment]
                return
        self.module.__dict__[self.attribute] = tensor


def held_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor, Holder]]:
    """Yield every place in `model` that holds a tensor, with the name of the place.

    Parameters and buffers come first, named as in a `state_dict`; then tensors that a module keeps
    as plain attributes and uses like buffers. A shared tensor is yielded once per place.
    """
    paths = list(model.named_modules(remove_duplicate=False))
    for kind in ("_parameters", "_buffers", "__dict__"):
        for path, module in paths:
            for attribute, value in getattr(module, kind).items():
                if isinstance(value, Tensor):
                    name = f"{path}.{attribute}" if path else attribute
                    yield name, value, Holder(module, attribute)


def stored_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return every tensor that `model` holds once, under its first name."""
    first: dict[int, tuple[str, Tensor]] = {}
    for name, tensor, _ in held_tensors(model):
        first.setdefault(id(tensor), (name, tensor))
    return dict(first.values())


def renewed(tensor: Tensor, data: Tensor) -> Tensor:
    """Return `data` as what `tensor` is: of its class, trained or not, with the marks set on it.

    Marks are attributes, for example `no_weight_decay` or notes of how a parameter is distributed.
    Hooks and the gradient stay with `tensor`.

    Args:
        tensor: What a module holds.
        data: Values of any shape, without a history of gradients.
    """
    new = data.detach()
    if isinstance(tensor, nn.Parameter) and is_traceable_wrapper_subclass(data):
        new = nn.Parameter(new, tensor.requires_grad)
    elif type(tensor) is not Tensor and type(tensor) is not type(new):
        new = Tensor._make_subclass(type(tensor), new, tensor.requires_grad)
    elif tensor.is_leaf and tensor.requires_grad:
        new.requires_grad_()
    new.__dict__.update(vars(tensor))
    return new


def copy_module(
    model: nn.Module, stand_ins: Mapping[int, Any] | None = None, *, private: bool = True
) -> nn.Module:
    """Return a copy of `model`; attributes that cannot be copied are shared.

    Hooks and other functions that hold parts of the model hold those of the copy.

    Args:
        model: Any module.
        stand_ins: What to put in place of objects, by their `id`.
        private: Whether the copy is only run here: dictionaries and lists of the user into which
            its hooks write are copied, too. Otherwise hooks of the copy write into the same ones.
    """
    memo = dict(stand_ins or {})
    functions = functions_that_hold(model, outside=private)
    memo.update({id(function): blank_twin(function) for function in functions})
    for _, tensor, _ in held_tensors(model):
        # PyTorch's own copies of parameters forget their marks, and of sparse tensors there are
        # none.
        marked = isinstance(tensor, nn.Parameter) and vars(tensor)
        if (marked or tensor.layout is not strided) and id(tensor) not in memo:
            memo[id(tensor)] = renewed(tensor, tensor.detach().clone())
    started = dict(memo)
    try:
        twin = _deep_copy(model, started)
    except _NO_COPY:
        memo |= _results_held(model)
        for module in model.modules():
            for value in vars(module).values():
                if not isinstance(value, dict) and not _can_copy(value, memo):
                    memo[id(value)] = value
        started = dict(memo)
        twin = _deep_copy(model, started)
    exchange = _Exchange(started, private)
    for function in functions:
        fill(memo[id(function)], function, exchange)
    _keep_modes(model, twin)
    _renew_caches(model, twin)
    return _rebound(model, twin, started)


_NOT_COPIED = ("_compiled_call_impl", "train", "eval")
"""Attributes that belong to a program alone: methods of `torch.export` only forbid their call."""
_NO_COPY = (TypeError, RuntimeError, PickleError, NotImplementedError)
"""What `copy.deepcopy` raises for an object that cannot be copied."""


def _deep_copy(model: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """Return a deep copy; afterwards `memo` holds all parts of it."""
    programs = [module for module in model.modules() if isinstance(module, GraphModule)]
    for module in programs:
        memo[id(module)] = _blank(module)
    for module in programs:
        # Their own copies forget attributes, hooks and the mode.
        state = {key: value for key, value in vars(module).items() if key not in _NOT_COPIED}
        memo[id(module)].__dict__.update(copy.deepcopy(state, memo))
    return copy.deepcopy(model, memo)


class _Exchange:
    """Finds the copy of what a function holds."""

    def __init__(self, copies: dict[int, Any], private: bool) -> None:
        self._copies, self._private = copies, private

    def __call__(self, value: Any) -> Any:
        """Return the copy of a value, or the value itself."""
        if id(value) in self._copies:
            return self._copies[id(value)]
        if isinstance(value, MethodType):
            return MethodType(value.__func__, self(value.__self__))
        if isinstance(value, partial):
            keywords = {key: self(item) for key, item in value.keywords.items()}
            return partial(self(value.func), *map(self, value.args), **keywords)
        if type(value) is tuple:
            return tuple(map(self, value))
        if self._private and type(value) in WRITABLE:
            # One level, because there may be much behind it that is no part of the model.
            self._copies[id(value)] = copy.copy(value)
            return self._copies[id(value)]
        return value


def _rebound(model: nn.Module, twin: nn.Module, memo: Mapping[int, Any]) -> nn.Module:
    """Make functions that `torch.compile` made of methods of `model` methods of its copy."""
    for module in model.modules():
        for name, value in vars(module).items():
            method = compiled_of(value)
            if isinstance(method, MethodType) and id(module) in memo:
                vars(memo[id(module)])[name] = copy.deepcopy(method, dict(memo))
    return twin


def _results_held(model: nn.Module) -> dict[int, Tensor]:
    """Return copies of the results of operations that modules keep, by the `id` of the results.

    PyTorch copies no tensor that belongs to a graph of gradients.
    """
    held = (
        tensor
        for module in model.modules()
        for key, value in vars(module).items()
        if key not in _INTERNAL and not isinstance(value, nn.Module)
        for tensor in _tensors_within(value)
    )
    return {id(tensor): tensor.detach().clone() for tensor in held if tensor.grad_fn is not None}


def _tensors_within(value: object, depth: int = 3) -> Iterator[Tensor]:
    """Yield the tensors in plain containers; objects are followed nowhere here."""
    if isinstance(value, Tensor):
        yield value
    elif depth and type(value) in (*_MAPPINGS, *_SEQUENCES):
        for item in value.values() if isinstance(value, dict) else value:  # type: ignore[attr-defined]
            yield from _tensors_within(item, depth - 1)


def _keep_modes(model: nn.Module, twin: nn.Module) -> None:
    """Put every module of a copy in the mode of its original; modules that rebuild forget it."""
    modes = {name: module.training for name, module in model.named_modules()}
    for name, module in twin.named_modules():
        module.training = modes.get(name, module.training)


def _renew_caches(model: nn.Module, twin: nn.Module) -> None:
    """Give a copy caches of its own; a cached method of the original would compute with that.

    `functools.lru_cache` objects are not copied. Code that keeps one in an attribute of a module,
    around a method of the same module, must find the copy's method behind it.
    """
    twins = dict(zip(map(id, model.modules()), twin.modules(), strict=False))
    for module in twin.modules():
        for key, value in list(vars(module).items()):
            if isinstance(value, _lru_cache_wrapper):
                module.__dict__[key] = _cached(value, twins)


def _cached(value: Any, twins: dict[int, Any]) -> Any:
    """Return an empty cache around the same function, for a method that of the twin."""
    inner = _cloned(value.__wrapped__, twins)
    return lru_cache(**value.cache_parameters())(inner)


def _can_copy(value: object, memo: Mapping[int, Any]) -> bool:
    try:
        copy.deepcopy(value, dict(memo))
    except _NO_COPY:
        return False
    return True


def clone_structure(model: nn.Module) -> nn.Module:
    """Return a copy of the modules and their containers that shares every tensor.

    Much faster than a copy, for modules that are run once and dropped. Nothing in it is compiled.
    """
    twins: dict[int, Any] = {id(module): _blank(module) for module in model.modules()}
    for module in model.modules():
        twin = twins[id(module)]
        skipped = _NOT_COPIED if isinstance(module, GraphModule) else ()
        for key, value in vars(module).items():
            if key in skipped:
                continue
            # Tables of hooks, mostly. Tensors may be registered in a forward: each copy its own.
            empty = key in _INTERNAL and not value and key not in _TABLES
            twin.__dict__[key] = value if empty else _cloned(value, twins)
    return run_uncompiled(twins[id(model)])


def sharing_copy(model: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode that shares every tensor with `model`.

    To be run in place of a user's model: what a forward keeps in attributes of modules (a table
    made in inference mode, for example) is lost with the copy.
    """
    return clone_structure(model).eval()


def run_uncompiled(copied: nn.Module) -> nn.Module:
    """Return a private copy in which the modules run that `torch.compile` was called on.

    Compiled code hides operations, and in a copy it may belong to the module that was copied. The
    same holds for modules that spread their inputs over devices.
    """
    for module in copied.modules():
        vars(module).pop("_compiled_call_impl", None)
        inner = wrapping_attribute(module)
        if inner is not None:
            vars(module)["forward"] = getattr(module, inner)
    return copied


def holds_plain_values(model: nn.Module) -> bool:
    """Whether `clone_structure` copies all that a forward can write into, but `held_tensors`.

    Modules without hooks, functions and objects of other libraries, which most networks are.
    """
    return all(
        (not value or key in _TABLES or key == "training")
        if key in _INTERNAL
        else isinstance(value, Tensor) or _is_plain(value)
        for module in model.modules()
        for key, value in vars(module).items()
    )


def _is_plain(value: object) -> bool:
    if value is None or isinstance(value, _PLAIN):
        return not isinstance(value, GraphModule)
    if type(value) not in (*_MAPPINGS, *_SEQUENCES, Size):
        return False
    items = (*value, *value.values()) if isinstance(value, dict) else value
    return all(map(_is_plain, items))  # type: ignore[call-overload]


_INTERNAL = frozenset(vars(nn.Module()))
_TABLES = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")
_MAPPINGS = (dict, OrderedDict)
_SEQUENCES = (list, tuple, set)
_PLAIN = (bool, int, float, str, bytes, type, dtype, device, nn.Module)
"""Types of values that a forward cannot write into; modules are copied by themselves."""


def _blank(module: nn.Module) -> nn.Module:
    twin: nn.Module = object.__new__(type(module))
    if isinstance(module, GraphModule):
        # The code is in the class, one for every module, and changes with the mode of some.
        twin = GraphModule.__new__(type(module))
        type(twin).forward = type(module).forward
    return twin


def _cloned_function(function: FunctionType, twins: dict[int, Any]) -> FunctionType:
    """Return a function that holds the twins of what it holds; the same one if there are none."""
    if id(function) not in twins:
        changed = []

        def exchange(value: Any) -> Any:
            new = _cloned(value, twins)
            changed.append(new is not value)
            return new

        twins[id(function)] = twin = blank_twin(function)
        fill(twin, function, exchange)
        if not any(changed):
            twins[id(function)] = function
    found: FunctionType = twins[id(function)]
    return found


def _cloned(value: Any, twins: dict[int, Any]) -> Any:
    """Return a copy of containers in which modules are their twins.

    Args:
        value: An attribute of a module.
        twins: Copies by the `id` of the original. Containers are added, so that a list that two
            modules share is one list again.
    """

    def cloned(item: Any) -> Any:
        return _cloned(item, twins)

    if isinstance(value, nn.Module):
        return twins.get(id(value), value)
    if isinstance(value, _CALLABLES):
        return _cloned_callable(value, twins)
    kind: Any = type(value)
    if kind is tuple:
        return tuple(map(cloned, value))
    if kind not in (*_MAPPINGS, list, set):
        return value
    if id(value) not in twins:
        twins[id(value)] = kind()
        items = value.items() if kind in _MAPPINGS else value
        filled = ((k, cloned(v)) for k, v in items) if kind in _MAPPINGS else map(cloned, items)
        add = list.extend if kind is list else kind.update
        add(twins[id(value)], filled)
    return twins[id(value)]


_CALLABLES = (FunctionType, MethodType, partial, _lru_cache_wrapper)


def _cloned_callable(value: Any, twins: dict[int, Any]) -> Any:
    def cloned(item: Any) -> Any:
        return _cloned(item, twins)

    if callable(plain := compiled_of(value)):
        return cloned(plain)
    if isinstance(value, FunctionType):
        return _cloned_function(value, twins)
    if isinstance(value, MethodType):
        return MethodType(value.__func__, cloned(value.__self__))
    if isinstance(value, partial):
        keywords = {key: cloned(item) for key, item in value.keywords.items()}
        return partial(cloned(value.func), *map(cloned, value.args), **keywords)
    return _cached(value, twins)
