"""Names that the code of a network's forward may read, found without running it."""

from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

from torch import nn


def reachable_names(model: nn.Module) -> frozenset[str]:
    """Return the names and texts in all code that a forward of `model` may run.

    These are the forwards of all modules, and from there all functions, methods and properties
    whose names occur. Code of PyTorch reads no attributes of a user's modules. An attribute whose
    name is not among these is read by no run, whatever path it takes.
    """
    classes = {kind for module in model.modules() for kind in type(module).__mro__}
    members: dict[str, list[CodeType]] = {}
    globals_of: dict[str, Any] = {}
    for kind in filter(_is_users, classes):
        for name, member in vars(kind).items():
            for function in _functions(member):
                members.setdefault(name, []).append(function.__code__)
                globals_of |= function.__globals__
    waiting, seen = list(members.get("forward", [])), set[CodeType]()
    for module in model.modules():
        own = vars(module).get("forward")
        waiting += [function.__code__ for function in _functions(getattr(own, "__func__", own))]
    names: set[str] = set()
    while waiting:
        code = waiting.pop()
        if code in seen:
            continue
        seen.add(code)
        for name in _names_in(code):
            names.add(name)
            waiting += members.get(name, [])
            found = globals_of.get(name)
            if isinstance(found, FunctionType) and not found.__module__.startswith("torch"):
                waiting.append(found.__code__)
        waiting += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return frozenset(names)


def _is_users(kind: type) -> bool:
    return kind is not object and kind.__module__.split(".")[0] != "torch"


def _functions(member: Any) -> Iterator[FunctionType]:
    """Yield the functions of a class member: a method, a property, what a decorator wraps."""
    if isinstance(member, property):
        member = member.fget
    member = getattr(member, "__func__", member)  # Static and class methods.
    while member is not None:
        if isinstance(member, FunctionType):
            yield member
        member = getattr(member, "__wrapped__", None)


def _names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    yield from (constant for constant in code.co_consts if isinstance(constant, str))
