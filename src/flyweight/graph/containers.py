"""Contents of nested values: the tensors in them with their places, and copies with other tensors.

What a value holds is found without running code of its class: the items of the built-in container
that it is or extends, and its attributes, in `__dict__` and in `__slots__`. So a class that nobody
foresaw is followed like any other, and what holds its data out of Python's reach is recognised.
"""

import array
import datetime
import decimal
import enum
import fractions
import logging
import re
import types
import uuid
import weakref
from collections import OrderedDict, UserDict, UserList, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import PurePath
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from flyweight.errors import GraphError

Parts = Iterable[tuple[str, Any]]
"""What a value holds: where in it, for example `[0]` or `.boxes`, and what."""

_PLAIN = frozenset(
    {type(None), bool, int, float, complex, str, bytes, bytearray, range, torch.Size}
    | {torch.dtype, torch.device, torch.layout, torch.memory_format, type(Ellipsis)}
)
"""Types that hold no tensors. Subclasses of them may, as attributes."""
_VALUES = (bool, int, float, complex, str, bytes, bytearray)
_WITHOUT_TENSORS = (
    *(type, types.ModuleType, enum.Enum, PurePath, logging.Logger, np.generic, np.dtype),
    *(datetime.date, datetime.time, datetime.timedelta, datetime.tzinfo, array.array),
    *(decimal.Decimal, fractions.Fraction, uuid.UUID, re.Pattern, torch.Size),
    *(torch.Generator, torch.dtype, torch.device, torch.layout, torch.memory_format),
)
"""Types that hold no tensors, subclasses included."""
_EMPTY: dict[str, Any] = {}
_VIEWS: tuple[type, ...] = (type(_EMPTY.values()), type(_EMPTY.items()), type(_EMPTY.keys()))


class _Kind(NamedTuple):
    """A built-in container: how its items are read, and put into a new one of its class."""

    base: type
    items: Callable[[Any], Parts]
    fill: Callable[[Any, Any, list[Any]], Any]


def placed_tensors(value: object, place: str = "output") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in `value`, each with its place, for example `output[1].points`.

    Args:
        value: Tensors in any nesting of containers and objects; see docs/own-model.md.
        place: Place of `value` itself.

    Raises:
        GraphError: A part cannot be followed, such as a generator or a numpy array: there may be
            tensors in it.
    """
    return _walk(value, place, (), _refuse)


def reachable_tensors(value: object, place: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in `value` with their places; what cannot be followed is passed over."""
    return _walk(value, place, (), _pass_over)


def require_repeatable(value: object, place: str) -> None:
    """Check that inputs can be read by every run of a model.

    Raises:
        GraphError: There is a generator or another iterator, which one run would use up.
    """
    for _ in _walk(value, place, (), _refuse_iterator):
        pass


def tensors_in(value: object) -> Iterator[Tensor]:
    """Yield the tensors in nested containers and objects, in order; other parts are passed over."""
    kind = type(value)
    if kind in _PLAIN:
        return
    if isinstance(value, Tensor):
        yield value
    elif kind is tuple or kind is list:
        for item in value:  # type: ignore[attr-defined]
            yield from tensors_in(item)
    elif kind is dict:
        for item in value.values():  # type: ignore[attr-defined]
            yield from tensors_in(item)
    else:
        for _, tensor in _walk(value, "", (), _pass_over):
            yield tensor


def with_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return a copy of nested containers and objects with every tensor replaced.

    Types, attributes and shared parts are kept. Lists, dictionaries and other built-in containers
    are copied in any case, because code may write into them; objects without tensors are shared.

    Args:
        value: Any nesting; parts that cannot be followed are shared.
        change: Returns the tensor to put in place of another one.
    """
    return _Copy(change).of(value)


def parts_of(value: object) -> list[tuple[str, Any]] | None:
    """Return what `value` holds and where in it; nothing if it cannot be followed.

    The items come before the attributes; an attribute that is also an item is left out.
    """
    if isinstance(value, type):
        return _shared_by_objects(value)
    if isinstance(value, _WITHOUT_TENSORS):
        return []
    kind = _kind_of(value)
    if kind is None:
        return _parts_of_special(value)
    found = [(place, item) for place, item in kind.items(value) if type(item) not in _PLAIN]
    if issubclass(kind.base, (dict, types.MappingProxyType)):
        keys = ((f".keys()[{place}]", key) for place, key in enumerate(value))  # type: ignore[var-annotated,arg-type]
        found += [(place, key) for place, key in keys if type(key) not in _PLAIN]
    if kind.base is object:
        found += _shared_by_objects(type(value))
    known = {id(item) for _, item in found}
    for name, item in attributes_of(value).items():
        if type(item) not in _PLAIN and id(item) not in known:
            # The data of these are in an attribute, which nobody writes.
            inner = isinstance(value, (UserDict, UserList)) and name == "data"
            found.append(("" if inner else f".{name}", item))
    return found


def _shared_by_objects(kind: type) -> list[tuple[str, Any]]:
    """Return tensors, and plain containers of tensors, that are attributes of a class."""
    return [
        (f".{name}", item)
        for one in kind.__mro__
        for name, item in vars(one).items()
        if isinstance(item, Tensor) or _has_tensors(item)
    ]


def _has_tensors(item: object) -> bool:
    # One level alone: classes refer to each other in circles.
    inner = item.values() if isinstance(item, dict) else item
    return isinstance(item, (list, tuple, dict, set)) and any(
        isinstance(one, Tensor)
        for one in inner  # type: ignore[attr-defined]
    )


def attributes_of(value: object) -> dict[str, Any]:
    """Return the attributes of an object by name, in slots and in its `__dict__`."""
    found: dict[str, Any] = {}
    for one in type(value).__mro__:
        if "__slots__" in vars(one):
            for name, member in vars(one).items():
                if isinstance(member, types.MemberDescriptorType) and name not in found:
                    try:
                        found[name] = member.__get__(value)
                    except AttributeError:  # It was never set.
                        continue
    try:
        return {**found, **object.__getattribute__(value, "__dict__")}
    except AttributeError:
        return found


def _walk(
    value: object, place: str, around: tuple[int, ...], stop: Callable[[object, str], None]
) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors below `value`; `around` are the identities of what it lies in."""
    if type(value) in _PLAIN or id(value) in around:
        return
    if isinstance(value, Tensor):
        if value.is_nested:
            stop(value, place)
        yield place, value
        # PyTorch's own stand-ins for tensors have attributes, too, of which none is the user's.
        own = type(value).__torch_dispatch__ is Tensor.__torch_dispatch__
        kept = own or is_traceable_wrapper_subclass(value)
        marks = attributes_of(value) if kept else {}
        parts: Parts | None = [(f".{name}", item) for name, item in marks.items()]
    else:
        parts = parts_of(value)
    if parts is None:
        stop(value, place)
        return
    for where, part in parts:
        yield from _walk(part, place + where, (*around, id(value)), stop)


def _pass_over(value: object, place: str) -> None:
    """Leave out what cannot be followed."""


def _refuse(value: object, place: str) -> None:
    raise GraphError(
        "A model must return tensors, in containers that can be followed. Received "
        f"{_described(value)} at {place}. Return the tensors themselves, for example in a tuple, a "
        "dictionary or a dataclass."
    )


def _refuse_iterator(value: object, place: str) -> None:
    if isinstance(value, Iterator):
        raise GraphError(
            "Example inputs must be readable more than once. Received a "
            f"{type(value).__name__} at {place}. Give a list of what it yields."
        )


def _described(value: object) -> str:
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else _full_name(kind)
    if isinstance(value, np.ndarray):
        return "a numpy array"
    if isinstance(value, types.GeneratorType):
        return "a generator, which computes later"
    if isinstance(value, Tensor):
        return "a nested tensor, whose parts have sizes of their own"
    if isinstance(value, nn.Module):
        return f"a module ({name}), which may compute later"
    if isinstance(value, types.FunctionType):
        return f"the function '{value.__qualname__}', which holds values and may compute later"
    return f"an object of type {name}, which may hold tensors where they cannot be found"


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _kind_of(value: object) -> _Kind | None:
    """Return the built-in container that a value is or extends, if it has nothing beyond it."""
    if isinstance(value, nn.Module):
        return None
    for kind in _KINDS:
        if isinstance(value, kind.base):
            return None if _has_hidden_data(type(value), kind.base) else kind
    return None


def _has_hidden_data(kind: type, base: type) -> bool:
    """Whether objects of a class hold more than the built-in base, slots and a `__dict__`.

    Classes of extensions do: their objects are larger than that.
    """
    slots = sum(
        isinstance(member, types.MemberDescriptorType)
        for one in kind.__mro__
        if "__slots__" in vars(one)
        for member in vars(one).values()
    )
    for offset in ("__dictoffset__", "__weakrefoffset__"):
        slots += getattr(kind, offset) != 0 and getattr(base, offset) == 0
    return kind.__basicsize__ > base.__basicsize__ + slots * np.dtype(np.intp).itemsize


def _parts_of_special(value: object) -> list[tuple[str, Any]] | None:
    if isinstance(value, weakref.ref):
        return [("()", value())]
    if isinstance(value, slice):
        return [(".start", value.start), (".stop", value.stop), (".step", value.step)]
    if isinstance(value, partial):
        given = [(f".args[{place}]", item) for place, item in enumerate(value.args)]
        named = [(f".keywords[{name!r}]", item) for name, item in value.keywords.items()]
        return [(".func", value.func), *given, *named]
    if isinstance(value, types.MethodType):
        return [(".__self__", value.__self__), (".__func__", value.__func__)]
    if isinstance(value, (types.BuiltinFunctionType, types.MethodWrapperType)):
        return [(".__self__", value.__self__)]
    if isinstance(value, types.FunctionType):
        return None if _holds_tensors(value) else []
    if isinstance(value, (types.WrapperDescriptorType, types.MethodDescriptorType)):
        return []
    return None


def _holds_tensors(function: types.FunctionType) -> bool:
    """Whether a function may compute with tensors or modules that it holds."""
    cells = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
    held = [*cells, function.__defaults__, function.__kwdefaults__, vars(function)]
    try:
        return any(True for _ in _walk(held, "", (id(function),), _refuse))
    except GraphError:
        return True


def _is_filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


class _Copy:
    """A copy with other tensors; what occurs twice is copied once."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        self._change = change
        # The value is kept beside its copy, so that its identity is not given to another one.
        self._done: dict[int, tuple[Any, Any]] = {}

    def of(self, value: Any) -> Any:
        """Return the copy of a value."""
        if type(value) in _PLAIN:
            return value
        if id(value) not in self._done:
            # A list or dictionary that contains itself meets itself uncopied.
            self._done[id(value)] = value, value
            self._done[id(value)] = value, self._copied(value)
        return self._done[id(value)][1]

    def _copied(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._tensor(value)
        kind = None if isinstance(value, _WITHOUT_TENSORS) else _kind_of(value)
        if kind is None:
            return value
        if kind.base in (object, *_VALUES) and not any(True for _ in tensors_in(value)):
            return value
        items = [self.of(item) for _, item in kind.items(value)]
        twin = kind.fill(type(value), value, items)
        self._done[id(value)] = value, twin  # Objects may refer to themselves.
        for name, item in attributes_of(value).items():
            object.__setattr__(twin, name, self.of(item))
        return twin

    def _tensor(self, value: Tensor) -> Tensor:
        new = self._change(value)
        if new is not value:
            for name, item in vars(value).items():
                setattr(new, name, self.of(item))
        return new


def _entries(value: dict[Any, Any]) -> Parts:
    # The order of an `OrderedDict` is not that of the `dict` it extends.
    kind = OrderedDict if isinstance(value, OrderedDict) else dict
    for key, item in kind.items(value):
        yield f"[{_shown(key)}]", item


def _shown(key: object) -> str:
    return repr(key) if type(key) in _PLAIN or isinstance(key, tuple) else type(key).__name__


def _items(value: Iterable[Any]) -> Parts:
    for place, item in enumerate(value):
        yield f"[{place}]", item


def _elements(kind: type) -> Callable[[Any], Parts]:
    return lambda value: _items(kind.__iter__(value))  # type: ignore[attr-defined]


def _fields(value: tuple[Any, ...]) -> Parts:
    names = getattr(type(value), "_fields", ())
    named = isinstance(names, tuple) and len(names) == len(value)
    for place, item in enumerate(tuple.__iter__(value)):
        yield f".{names[place]}" if named else f"[{place}]", item


def _members(value: frozenset[Any] | set[Any]) -> Parts:
    # The order of a set differs from run to run: tensors are ordered by shape and by their sum.
    return _items(sorted(value, key=_rank) if any(isinstance(i, Tensor) for i in value) else value)


def _rank(item: object) -> tuple[str, float]:
    if not isinstance(item, Tensor):
        return "", 0.0
    total = 0.0 if item.is_meta or item.is_complex() else float(item.double().sum())
    return f"{tuple(item.shape)} {item.dtype}", total


def _fill_dict(kind: Any, old: dict[Any, Any], items: list[Any]) -> Any:
    twin = dict.__new__(kind)
    for key, item in zip(dict.keys(old), items, strict=True):
        dict.__setitem__(twin, key, item)
    return twin


def _fill_ordered(kind: Any, old: OrderedDict[Any, Any], items: list[Any]) -> Any:
    twin = OrderedDict.__new__(kind)
    for key, item in zip(old, items, strict=True):
        OrderedDict.__setitem__(twin, key, item)
    return twin


def _fill_default(kind: Any, old: defaultdict[Any, Any], items: list[Any]) -> Any:
    twin = defaultdict.__new__(kind)
    defaultdict.__init__(twin, old.default_factory, zip(dict.keys(old), items, strict=True))
    return twin


def _fill_list(kind: Any, _: list[Any], items: list[Any]) -> Any:
    twin = list.__new__(kind)
    list.extend(twin, items)
    return twin


def _fill_deque(kind: Any, old: deque[Any], items: list[Any]) -> Any:
    twin = deque.__new__(kind)
    deque.__init__(twin, items, old.maxlen)
    return twin


def _fill_set(kind: Any, _: set[Any], items: list[Any]) -> Any:
    twin = set.__new__(kind)
    set.update(twin, items)
    return twin


def _fill_tuple(kind: Any, old: tuple[Any, ...], items: list[Any]) -> Any:
    # The named results of torch (`x.max(1)`) have no `__new__` of `tuple`.
    return kind(items) if hasattr(kind, "n_sequence_fields") else tuple.__new__(kind, items)


def _fill_view(_: Any, old: Any, items: list[Any]) -> Any:
    if isinstance(old, _VIEWS[1]):
        return dict(items).items()
    if isinstance(old, _VIEWS[2]):
        return dict.fromkeys(items).keys()
    return dict(enumerate(items)).values()


def _fill_value(kind: Any, old: Any, _: list[Any]) -> Any:
    base: Any = next(one for one in _VALUES if issubclass(kind, one))
    return base.__new__(kind, old)


def _fill_object(kind: Any, _: object, __: list[Any]) -> Any:
    try:
        return object.__new__(kind)
    except TypeError:  # A class of C, such as `types.SimpleNamespace`, has its own.
        return kind.__new__(kind)


def _fill_frozen(kind: Any, _: frozenset[Any], items: list[Any]) -> Any:
    new: Any = frozenset.__new__
    return new(kind, items)


def _fill_proxy(kind: Any, old: Any, items: list[Any]) -> Any:
    return kind(dict(zip(old, items, strict=True)))


def _no_items(_: object) -> Parts:
    return ()


def _of_mapping(value: Any) -> Parts:
    return ((f"[{_shown(key)}]", item) for key, item in value.items())


_KINDS = (
    _Kind(OrderedDict, _entries, _fill_ordered),
    _Kind(defaultdict, _entries, _fill_default),
    _Kind(dict, _entries, _fill_dict),
    _Kind(list, _elements(list), _fill_list),
    _Kind(tuple, _fields, _fill_tuple),
    _Kind(deque, _elements(deque), _fill_deque),
    _Kind(set, _members, _fill_set),
    _Kind(frozenset, _members, _fill_frozen),
    _Kind(types.MappingProxyType, _of_mapping, _fill_proxy),
    *(_Kind(view, _items, _fill_view) for view in _VIEWS),
    *(_Kind(value, _no_items, _fill_value) for value in _VALUES),
    _Kind(object, _no_items, _fill_object),
)
"""Every built-in container, the most special first; `object` stands for those with attributes."""
