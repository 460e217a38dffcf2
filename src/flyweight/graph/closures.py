"""Functions that hold parts of a model, made to work on its copy.

A copy of a module shares functions with it. A hook that writes features into a dictionary of the
model, or a `forward` that was replaced by a function around the old one, would reach the model
instead of the copy: what they hold (variables of the code around them, defaults) is exchanged.
"""

from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from functools import partial
from types import CellType, FunctionType, MethodType
from typing import Any

from torch import nn

_EMPTY = CellType()
_CONTAINERS = (dict, list, tuple, set, OrderedDict, defaultdict, deque)
_SEARCHED = frozenset({FunctionType, partial, *_CONTAINERS})
WRITABLE = (dict, list, set, OrderedDict, defaultdict, deque)
"""Containers that a hook may write into."""

Exchange = Callable[[Any], Any]
"""Returns what takes the place of an object, or the object itself."""


def compiled_of(value: Any) -> Any:
    """Return the callable that `torch.compile` made a function of; nothing of other values."""
    attributes = vars(value) if isinstance(value, FunctionType) else {}
    return attributes.get("_torchdynamo_orig_callable")


def functions_that_hold(model: nn.Module, *, outside: bool) -> list[FunctionType]:
    """Return the functions in `model` that hold modules or containers of it.

    Args:
        model: Its attributes and hooks are searched, and functions held by functions.
        outside: Whether functions count that hold containers from outside of the model, too.
    """
    modules = list(model.modules())
    seen: dict[int, FunctionType] = {}
    for module in modules:
        for value in vars(module).values():
            # Most attributes are numbers, modules and empty tables of hooks: this is a loop over
            # all of them, for every copy.
            if type(value) in _SEARCHED and value and value is not module._modules:
                _gather(value, seen)
    if not seen:
        return []
    own = {id(module) for module in modules}
    for module in modules:
        own.update(id(held) for held in _writable(vars(module).values()))

    def counts(value: Any) -> bool:
        return id(value) in own or (outside and type(value) in WRITABLE)

    held = {place: list(_reachable(function, set())) for place, function in seen.items()}
    return [function for place, function in seen.items() if any(map(counts, held[place]))]


def blank_twin(function: FunctionType) -> FunctionType:
    """Return a function of the same code that holds nothing yet; see `fill`."""
    cells = tuple(CellType() for _ in function.__closure__ or ())
    name = function.__name__
    return FunctionType(function.__code__, function.__globals__, name, None, cells or None)


def fill(twin: FunctionType, function: FunctionType, exchange: Exchange) -> None:
    """Make `twin`, from `blank_twin`, hold what takes the place of what `function` holds."""
    for new, old in zip(twin.__closure__ or (), function.__closure__ or (), strict=True):
        if old != _EMPTY:
            new.cell_contents = exchange(old.cell_contents)
    if function.__defaults__ is not None:
        twin.__defaults__ = tuple(map(exchange, function.__defaults__))
    if function.__kwdefaults__ is not None:
        twin.__kwdefaults__ = {k: exchange(v) for k, v in function.__kwdefaults__.items()}
    twin.__dict__.update({name: exchange(value) for name, value in vars(function).items()})
    twin.__qualname__, twin.__doc__ = function.__qualname__, function.__doc__
    twin.__module__, twin.__annotations__ = function.__module__, function.__annotations__


def _writable(values: Any) -> Iterator[Any]:
    return (value for value in values if type(value) in WRITABLE)


def _gather(value: Any, seen: dict[int, FunctionType]) -> None:
    """Note the functions in a value, in containers and behind other functions too."""
    if isinstance(value, FunctionType):
        if id(value) not in seen and compiled_of(value) is None:
            seen[id(value)] = value
            for held in _held_by(value):
                _gather(held, seen)
    elif isinstance(value, partial):
        for part in (value.func, *value.args, *value.keywords.values()):
            _gather(part, seen)
    elif type(value) in _CONTAINERS:
        for item in value.values() if isinstance(value, dict) else value:
            if isinstance(item, (FunctionType, partial)):
                _gather(item, seen)


def _held_by(function: FunctionType) -> list[Any]:
    cells = [cell.cell_contents for cell in function.__closure__ or () if cell != _EMPTY]
    defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
    return [*cells, *defaults, *vars(function).values()]


def _reachable(function: FunctionType, seen: set[int]) -> Iterator[Any]:
    """Yield what a function holds, behind functions, methods and partial functions too."""
    if id(function) in seen:
        return
    seen.add(id(function))
    left = _held_by(function)
    while left:
        value = left.pop()
        yield value
        if isinstance(value, FunctionType):
            yield from _reachable(value, seen)
        elif isinstance(value, MethodType):
            left.append(value.__self__)
        elif isinstance(value, partial):
            left += [value.func, *value.args, *value.keywords.values()]
