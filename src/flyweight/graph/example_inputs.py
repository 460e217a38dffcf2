"""Example inputs, their description in plain values, and inputs drawn from a description."""

import math
from collections import OrderedDict, UserDict, defaultdict, deque, namedtuple
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from keyword import iskeyword
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from flyweight.errors import GraphError
from flyweight.graph.containers import (
    attributes_of,
    reachable_tensors,
    require_repeatable,
    with_tensors,
)
from flyweight.graph.containers import tensors_in as tensors_in

InputSpec = Any
"""A tensor is `(shape, dtype)`; lists and dictionaries with text keys hold specs; numbers, texts
and None are themselves. All else is a dictionary with the key `#`, see `describe`."""

_MARK = "#"
_PLAIN = (str, int, bool, type(None))
_KEYS = (*_PLAIN, float)
_MAPPINGS = (dict, OrderedDict, defaultdict)


@dataclass(frozen=True, eq=False)
class Example:
    """What a model is called with, or the description of it.

    Attributes:
        args: Positional inputs; tensors may be nested in containers and objects.
        kwargs: Keyword inputs by name.

    Raises:
        GraphError: Positional inputs are not a tuple or a list, keyword inputs are not a mapping,
            or there is an iterator in them.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.args, (tuple, list)):
            _refuse_call("positional inputs in a tuple, for example (images,)", self.args)
        if not isinstance(self.kwargs, Mapping) or not all(type(k) is str for k in self.kwargs):
            _refuse_call("keyword inputs in a mapping of names", self.kwargs)
        require_repeatable(self.args, "args")
        require_repeatable(dict(self.kwargs), "kwargs")

    def described(self) -> "Example":
        """Return the same with a spec in place of every input."""
        return Example(
            tuple(describe(value) for value in self.args),
            {name: describe(value) for name, value in self.kwargs.items()},
        )

    def mapped(self, change: Callable[[Tensor], Tensor]) -> "Example":
        """Return the same with every tensor replaced by what `change` returns.

        Containers and objects with tensors are copied and keep their types, so that a model that
        writes into its inputs does not change these.
        """
        args, kwargs = with_tensors((tuple(self.args), dict(self.kwargs)), change)
        return Example(args, kwargs)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield every tensor with its place, for example `args[0]` or `kwargs['mask']`."""
        yield from reachable_tensors(tuple(self.args), "args")
        yield from reachable_tensors(dict(self.kwargs), "kwargs")


def _refuse_call(what: str, given: object) -> NoReturn:
    raise GraphError(
        f"A model must be given {what}. Received an object of type {type(given).__name__}. "
        "Write trace(model, (images,), {'mask': mask})."
    )


def describe(value: Any) -> InputSpec:
    """Return shapes and types of the tensors in `value`, in its own structure, as JSON values.

    Lists, tuples, dictionaries with text keys, numbers and texts have specs of their own kind. All
    else is a dictionary whose key `#` states what it is, so that reading the JSON back is well
    defined: a class is named and never imported.

    | `#` | further keys |
    |---|---|
    | `named tuple`, `object` | `type`, `fields`: specs by name |
    | `mapping` | `type`, `items`: pairs of a key and a spec |
    | `sequence` | `type`, `items`: specs by place, as text |
    | `slice`, `range` | `items`: start, stop and step by place |
    | `number` | `value`: a number that JSON does not have, as text |
    | `dtype`, `device` | `name` |
    | `unknown` | `type`; it has no tensors, and nothing like it can be drawn |
    """
    return _described(value, ())


def _described(value: Any, around: tuple[int, ...]) -> InputSpec:
    if isinstance(value, Tensor):
        return (tuple(value.shape), str(value.dtype).removeprefix("torch."))
    if type(value) in _PLAIN:
        return value
    if isinstance(value, (int, float, complex, np.number)) and not isinstance(value, Enum):
        return _described_number(value.item() if isinstance(value, np.number) else value)
    if isinstance(value, torch.dtype):
        return {_MARK: "dtype", "name": str(value).removeprefix("torch.")}
    if isinstance(value, torch.device):
        return {_MARK: "device", "name": str(value)}
    if id(value) in around:
        return {_MARK: "unknown", "type": _name(value)}
    return _described_container(value, (*around, id(value)))


def _described_number(value: complex) -> InputSpec:
    if isinstance(value, int):
        return int(value)
    finite = isinstance(value, float) and math.isfinite(value)
    return value if finite else {_MARK: "number", "value": str(value)}


def _described_container(value: Any, around: tuple[int, ...]) -> InputSpec:
    def inner(item: Any) -> InputSpec:
        return _described(item, around)

    if isinstance(value, (Mapping, UserDict)):
        return _described_mapping(value, inner)
    if isinstance(value, (slice, range)):
        bounds = (value.start, value.stop, value.step)
        places = {str(place): inner(item) for place, item in enumerate(bounds)}
        return {_MARK: type(value).__name__, "items": places}
    names = getattr(type(value), "_fields", None) if isinstance(value, tuple) else None
    if names is not None:
        fields = dict(zip(names, map(inner, value), strict=True))
        return {_MARK: "named tuple", "type": _name(value), "fields": fields}
    if isinstance(value, (list, tuple, deque, set, frozenset)):
        items = [inner(item) for item in value]
        if isinstance(value, (list, tuple)) and not _is_tensor(items):
            return items
        # Not a list, which would read like a tensor.
        places = {str(place): item for place, item in enumerate(items)}
        return {_MARK: "sequence", "type": _name(value), "items": places}
    if next(tensors_in(value), None) is None:
        return {_MARK: "unknown", "type": _name(value)}
    fields = {name: inner(item) for name, item in attributes_of(value).items()}
    return {_MARK: "object", "type": _name(value), "fields": fields}


def _described_mapping(value: Any, inner: Callable[[Any], InputSpec]) -> InputSpec:
    entries = {key: inner(item) for key, item in value.items()}
    if type(value) in _MAPPINGS and _MARK not in entries and all(type(k) is str for k in entries):
        return entries
    items = [[key if type(key) in _KEYS else inner(key), item] for key, item in entries.items()]
    return {_MARK: "mapping", "type": _name(value), "items": items}


def _name(value: object) -> str:
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")


_MOST_DRAWN = 2**28  # Values of one tensor; 1 GiB of float32.


def draw(spec: InputSpec, generator: torch.Generator, like: Tensor) -> Any:
    """Return inputs of `spec` on the device of `like`.

    Floating-point values lie in [0, 1). Whole numbers are 0, which is an index of any table. Of
    truth values, every row along the last axis of more than one begins with False and ends with
    True, so that a mask never hides all or nothing. Objects of classes that only the example knows
    are replaced by objects with the same fields.

    Raises:
        GraphError: There is a part of which only the type is known.
    """
    if _is_tensor(spec):
        return _drawn(tuple(spec[0]), getattr(torch, spec[1]), generator).to(like.device)
    if isinstance(spec, Mapping):
        inner = {key: draw(item, generator, like) for key, item in _inner(spec).items()}
        return _BUILT[spec[_MARK]](spec, inner) if _is_marked(spec) else inner
    if isinstance(spec, (list, tuple)):
        return [draw(item, generator, like) for item in spec]
    return spec


def _drawn(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    if math.prod(shape) > _MOST_DRAWN:
        raise GraphError(
            f"An input must have at most {_MOST_DRAWN:,} values. Received one of shape "
            f"{list(shape)!r:.80}. Give a smaller example."
        )
    drawn = torch.rand(shape, generator=generator)
    if dtype.is_complex:
        return torch.complex(drawn, torch.rand(shape, generator=generator)).to(dtype)
    if dtype is not torch.bool:
        return drawn.to(dtype)
    mask = drawn < 0.5
    wide = [axis for axis, size in enumerate(shape) if size > 1]
    if wide:
        mask.select(wide[-1], 0).fill_(False)
        mask.select(wide[-1], -1).fill_(True)
    return mask


class DrawnMapping(dict[Any, Any]):
    """Stands for a mapping of a class from outside: its items are attributes, too."""

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(name)


def _build_mapping(spec: Mapping[str, Any], inner: dict[str, Any]) -> Any:
    keys = [_key(key) for key, _ in spec["items"]]
    plain = spec["type"] in ("dict", "collections.OrderedDict", "collections.defaultdict")
    return (dict if plain else DrawnMapping)(zip(keys, inner.values(), strict=True))


def _build_sequence(spec: Mapping[str, Any], inner: dict[str, Any]) -> Any:
    kinds = {"collections.deque": deque, "set": set, "frozenset": frozenset}
    build: Callable[[Any], Any] = kinds.get(spec["type"], list)
    return build(inner.values())


def _build_number(spec: Mapping[str, Any], _: dict[str, Any]) -> complex:
    try:
        return float(spec["value"])
    except ValueError:
        return complex(spec["value"])


def _build_unknown(spec: Mapping[str, Any], _: dict[str, Any]) -> Any:
    raise GraphError(
        "An input must be given where a model takes more than tensors, numbers and containers of "
        f"them. Received a description of one of type {spec['type']}, of which only this name is "
        "known. Use the plan that was made from the example itself."
    )


_BUILT: Mapping[str, Callable[[Mapping[str, Any], dict[str, Any]], Any]] = {
    "named tuple": lambda spec, inner: namedtuple("NamedTuple", inner)(**inner),
    "object": lambda _, inner: SimpleNamespace(**inner),
    "mapping": _build_mapping,
    "sequence": _build_sequence,
    "slice": lambda _, inner: slice(*inner.values()),
    "range": lambda _, inner: range(*inner.values()),
    "number": _build_number,
    "dtype": lambda spec, _: getattr(torch, spec["name"]),
    "device": lambda spec, _: torch.device(spec["name"]),
    "unknown": _build_unknown,
}
"""Every value of `#`, with what builds such an input from the spec and the inputs drawn inside."""


_INNER = {
    **dict.fromkeys(("named tuple", "object"), "fields"),
    **dict.fromkeys(("sequence", "slice", "range"), "items"),
}


def _inner(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the specs inside a dictionary, marked or not, by name."""
    if not _is_marked(spec):
        return spec
    if spec[_MARK] == "mapping":
        return {str(place): item for place, (_, item) in enumerate(spec["items"])}
    where = _INNER.get(spec[_MARK])
    inner: Mapping[str, Any] = spec[where] if where else {}
    return inner


def _key(key: Any) -> Any:
    if isinstance(key, (list, tuple)):
        return tuple(map(_key, key))
    return _BUILT[key[_MARK]](key, {}) if isinstance(key, Mapping) else key


def _is_marked(spec: Mapping[str, Any]) -> bool:
    return isinstance(spec.get(_MARK), str)


def freeze_spec(spec: InputSpec) -> InputSpec:
    """Return a spec as `describe` gave it from what JSON made of it.

    Raises:
        KeyError: It states with `#` what this version does not know.
        TypeError: What it states is not complete.
        ValueError: A text in it has no meaning here.
    """
    if isinstance(spec, Mapping):
        frozen = {key: freeze_spec(item) for key, item in spec.items()}
        if _is_marked(frozen):
            _require_whole(frozen)
        return frozen
    if _is_tensor(spec):
        return (tuple(spec[0]), spec[1])
    return [freeze_spec(item) for item in spec] if isinstance(spec, list) else spec


def _require_whole(spec: Mapping[str, Any]) -> None:
    """Check that a marked spec has all that `draw` reads."""
    kind = spec[_MARK]
    if kind not in _BUILT:
        raise KeyError(f"an input of kind '{kind}'")
    text = {"number": "value", "dtype": "name", "device": "name"}.get(kind, "type")
    if kind in ("slice", "range"):
        _BUILT[kind](spec, dict(spec["items"]))
        return
    if not isinstance(spec[text], str):
        raise TypeError(f"'{text}' of an input must be text")
    inner = _inner(spec)
    if kind in ("named tuple", "object") and not all(map(_is_field, inner)):
        raise ValueError("the fields of an input must be names")
    if kind == "mapping":
        hash(tuple(_key(key) for key, _ in spec["items"]))
    if kind in ("number", "dtype", "device"):
        try:
            found = _BUILT[kind](spec, {})
        except (RuntimeError, AttributeError) as error:
            raise ValueError(f"there is no {kind} '{spec}'") from error
        if kind == "dtype" and not isinstance(found, torch.dtype):
            raise ValueError(f"there is no type '{spec['name']}'")


def _is_field(name: str) -> bool:
    return name.isidentifier() and not iskeyword(name)


def _is_tensor(spec: InputSpec) -> bool:
    if not (isinstance(spec, (list, tuple)) and len(spec) == 2 and isinstance(spec[1], str)):
        return False
    shape, dtype = spec
    return (
        isinstance(shape, (list, tuple))
        and all(isinstance(size, int) for size in shape)
        and isinstance(getattr(torch, dtype, None), torch.dtype)
    )
