"""Isolation of runs: what a forward keeps outside of its module is taken back.

A copy of a module protects the attributes of the module alone. Code also keeps tensors behind
`functools.lru_cache`, in attributes of its class and in containers of its source file. Left there,
a tensor without values, or one made in inference mode, breaks the user's next run; found there, it
makes a run depend on what ran before.
"""

import sys
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import _lru_cache_wrapper
from types import CellType, FunctionType, ModuleType
from typing import Any

from torch import Tensor, nn

Made = Callable[[Tensor], bool]
"""Whether a tensor was made by the isolated run, not by another thread meanwhile."""

_LIBRARIES = ("torch", "builtins", "typing", "collections", "abc")
"""Packages whose classes keep nothing between runs."""
_UNCHANGED = (FunctionType, ModuleType, type, staticmethod, classmethod, property)
_DEEPEST = 3
"""How many decorators around a cached function are looked through."""
_EMPTY_CELL = CellType()
_CONTAINERS = (dict, list, set, OrderedDict, defaultdict)


@contextmanager
def isolated(model: nn.Module, made: Made) -> Iterator[None]:
    """Run code of `model` with empty caches, and take back the tensors that it keeps elsewhere.

    Caches are empty before and after, for all threads: their results are computed again.

    Args:
        model: Its classes and the source files of these are searched.
        made: Which tensors are taken back.
    """
    owners = _owners(model)
    caches = [cache for owner in owners for cache in _caches(owner)]
    before = [(owner, _attributes(owner)) for owner in owners]
    for cache in caches:
        cache.cache_clear()
    try:
        yield
    finally:
        for cache in caches:
            cache.cache_clear()
        for owner, attributes in before:
            _restore(owner, attributes, made)


def _owners(model: nn.Module) -> list[type | ModuleType]:
    """Return the classes of all modules, and the source files that define them."""
    classes = {base: None for kind in {type(m) for m in model.modules()} for base in kind.__mro__}
    own = [kind for kind in classes if kind.__module__.split(".")[0] not in _LIBRARIES]
    files = dict.fromkeys(kind.__module__ for kind in own)
    named = [sys.modules[name] for name in files if name in sys.modules]
    return [*own, *dict.fromkeys(each for file in named for each in (file, *_imported(file)))]


def _imported(file: ModuleType) -> list[ModuleType]:
    """Return the source files of the same package that a file refers to as a whole."""
    root = file.__name__.split(".")[0]
    found = [value for value in vars(file).values() if isinstance(value, ModuleType)]
    return [other for other in found if other.__name__.split(".")[0] == root]


def _caches(owner: type | ModuleType) -> Iterator[Any]:
    """Yield the caches around the functions of an owner, within decorators too."""
    for name, value in list(vars(owner).items()):
        if not name.startswith("__"):
            plain = value.__func__ if type(value) in (staticmethod, classmethod) else value
            yield from _caches_in(plain, _DEEPEST)


def _caches_in(value: object, depth: int) -> Iterator[Any]:
    # Not `isinstance`, which asks objects that stand for others what they are.
    if type(value) is _lru_cache_wrapper:
        yield value
    elif type(value) is FunctionType and depth:
        for cell in value.__closure__ or ():
            if cell != _EMPTY_CELL:
                yield from _caches_in(cell.cell_contents, depth - 1)


def _attributes(owner: type | ModuleType) -> dict[str, tuple[Any, Any]]:
    """Return the attributes of an owner that may change, with the contents of containers."""
    return {
        name: (value, value.copy() if type(value) in _CONTAINERS else None)
        for name, value in list(vars(owner).items())
        if not name.startswith("__") and type(value) not in _UNCHANGED
    }


def _restore(owner: type | ModuleType, before: dict[str, tuple[Any, Any]], made: Made) -> None:
    for name, value in list(vars(owner).items()):
        if name.startswith("__") or not _holds(value, made):
            continue
        earlier, content = before.get(name, (None, None))
        if name not in before:
            delattr(owner, name)
        elif earlier is not value:
            setattr(owner, name, earlier)
        elif content is not None:
            _refill(value, content, made)


def _holds(value: Any, made: Made) -> bool:
    """Whether a value is or contains a tensor of the run."""
    if isinstance(value, Tensor):
        return made(value)
    if type(value) in _CONTAINERS or type(value) is tuple:
        items = value.values() if isinstance(value, dict) else value
        return any(_holds(item, made) for item in list(items))
    return False


def _refill(value: Any, content: Any, made: Made) -> None:
    """Take tensors of the run out of a container; what other threads have added stays."""
    if isinstance(value, list):
        value[:] = [item for item in value if not _holds(item, made)]
    elif isinstance(value, set):
        value -= {item for item in value if _holds(item, made)}
    else:
        for key in [key for key, item in value.items() if _holds(item, made)]:
            if key in content:
                value[key] = content[key]
            else:
                del value[key]
