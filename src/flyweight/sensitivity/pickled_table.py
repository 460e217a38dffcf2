"""Pickles of plain tables, read in Python: only the operations that such files have.

The standard library's reader in C reserves memory for whatever a file of nine bytes asks for, and
nested values end the process. This one makes texts, numbers and mappings of them, and calls
nothing: a number of NumPy is recognised by the names in the file.
"""

import codecs
import io
import pickletools
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flyweight.untrusted.failures import LimitError

_MOST_OPERATIONS = 1_000_000
_MOST_DIGITS = 40
_MOST_ITEMS = 16  # Of a tuple; the largest is the state of NumPy's type, which has eight or nine.

_DTYPE = "numpy dtype"
_SCALARS = ("numpy.core.multiarray scalar", "numpy._core.multiarray scalar")
_ENCODE = "_codecs encode"  # Python 2 and protocol 2 store bytes in this way.
_CODES = {"f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i"}


class _Named(str):
    """A function or class that the file names; it is never looked up."""


class _Mark:
    """Where the items of a tuple or mapping begin."""


@dataclass
class _Type:
    """NumPy's type of a number, as the file describes it."""

    code: str
    order: str


@dataclass
class _Machine:
    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def items(self) -> list[Any]:
        """Remove and return what lies above the last mark, and the mark."""
        found: list[Any] = []
        while not isinstance(item := self.stack.pop(), _Mark):
            found.append(item)
        return found[::-1]


def read_pickle(data: bytes) -> Any:
    """Return the table in a pickle: texts, numbers, and mappings of them.

    Raises:
        LimitError: It is larger than any real table.
        ValueError: The data is damaged, or holds anything else.
        Exception: Whatever else damaged data leads to; see `untrusted.failures.refusing`.
    """
    machine, file = _Machine(), io.BytesIO(data)
    for _ in range(_MOST_OPERATIONS):
        name, argument = _next_operation(file)
        if name == "STOP":
            return machine.stack.pop()
        if name in _ARGUMENT_IS_VALUE:
            machine.stack.append(_plain(argument))
        else:
            _STEPS[name](machine, argument)
    raise LimitError(f"more than the {_MOST_OPERATIONS:,} operations that are read")


def _next_operation(file: io.BytesIO) -> tuple[str, Any]:
    code = file.read(1)
    if not code:
        raise ValueError("the pickle ends too early")
    known = _KNOWN.get(code)
    if known is None:
        raise ValueError(f"the operation {code!r}, which a table never needs")
    if known.name == "STRING":
        return known.name, _old_text(file)
    return known.name, known.arg.reader(file) if known.arg is not None else None


def _old_text(file: io.BytesIO) -> str:
    # The module's own reader takes ASCII alone, and Python 2 wrote NumPy's bytes as such a text.
    raw = pickletools.read_stringnl(file, decode=False)
    return codecs.escape_decode(raw)[0].decode("latin-1")


def _plain(value: Any) -> Any:
    if type(value) is int and abs(value) >= 10**_MOST_DIGITS:
        raise LimitError(f"a whole number of more than {_MOST_DIGITS} digits")
    return value


def _put(machine: _Machine, place: int) -> None:
    machine.memo[place] = machine.stack[-1]


def _memoize(machine: _Machine, _: Any) -> None:
    machine.memo[len(machine.memo)] = machine.stack[-1]


def _get(machine: _Machine, place: int) -> None:
    machine.stack.append(machine.memo[place])


def _tuple_of(count: int) -> Callable[[_Machine, Any], None]:
    def make(machine: _Machine, _: Any) -> None:
        items = [machine.stack.pop() for _ in range(count)][::-1]
        machine.stack.append(_tuple(items))

    return make


def _tuple(items: list[Any]) -> tuple[Any, ...]:
    # Tuples within tuples would grow without an end when they are compared or used as keys.
    if len(items) > _MOST_ITEMS or any(isinstance(item, (tuple, dict)) for item in items):
        raise ValueError("a tuple that a table never needs")
    return tuple(items)


def _fill(table: Any, items: list[Any]) -> None:
    if not isinstance(table, dict) or len(items) % 2:
        raise TypeError("items for something else than a table")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, (str, int, float)):
            raise TypeError(f"a key is a text or a number, not {type(key).__name__}")
        table[key] = value


def _dict(machine: _Machine, _: Any) -> None:
    table: dict[Any, Any] = {}
    _fill(table, machine.items())
    machine.stack.append(table)


def _set_item(machine: _Machine, _: Any) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    _fill(machine.stack[-1], [key, value])


def _set_items(machine: _Machine, _: Any) -> None:
    items = machine.items()
    _fill(machine.stack[-1], items)


def _name(machine: _Machine, named: str) -> None:
    if named not in (_DTYPE, *_SCALARS, _ENCODE):
        raise ValueError(f"it asks for {named.replace(' ', '.')}, which a table never needs")
    machine.stack.append(_Named(named))


def _name_on_stack(machine: _Machine, _: Any) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    _name(machine, f"{module} {name}")


def _reduce(machine: _Machine, _: Any) -> None:
    arguments, named = machine.stack.pop(), machine.stack.pop()
    if not isinstance(named, _Named) or not isinstance(arguments, tuple):
        raise TypeError("a call of something that is no function")
    if named == _DTYPE:
        code = str(arguments[0])
        made: Any = _Type(code.lstrip("<>=|"), ">" if code.startswith(">") else "<")
    elif named == _ENCODE:
        made = arguments[0].encode("latin-1")
    else:
        made = _number(*arguments)
    machine.stack.append(made)


def _number(kind: Any, data: Any) -> float:
    raw = data.encode("latin-1") if isinstance(data, str) else data
    (value,) = struct.unpack(kind.order + _CODES[kind.code], raw)
    return float(value)


def _build(machine: _Machine, _: Any) -> None:
    state, kind = machine.stack.pop(), machine.stack[-1]
    if not isinstance(kind, _Type):
        raise TypeError("a state for something that has none")
    kind.order = ">" if state[1] == ">" else "<"


_ARGUMENT_IS_VALUE = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES"),
        *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE"),
    }
)

_STEPS: Mapping[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "MARK": lambda machine, _: machine.stack.append(_Mark()),
    "NONE": lambda machine, _: machine.stack.append(None),
    "NEWTRUE": lambda machine, _: machine.stack.append(True),
    "NEWFALSE": lambda machine, _: machine.stack.append(False),
    "PUT": _put,
    "BINPUT": _put,
    "LONG_BINPUT": _put,
    "MEMOIZE": _memoize,
    "GET": _get,
    "BINGET": _get,
    "LONG_BINGET": _get,
    "EMPTY_TUPLE": _tuple_of(0),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "TUPLE": lambda machine, _: machine.stack.append(_tuple(machine.items())),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "DICT": _dict,
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    "GLOBAL": _name,
    "STACK_GLOBAL": _name_on_stack,
    "REDUCE": _reduce,
    "BUILD": _build,
}
"""What each operation does, by its name in `pickletools`; a file with any other one is refused."""

_KNOWN = {
    one.code.encode("latin-1"): one
    for one in pickletools.opcodes
    if one.name in _STEPS or one.name in _ARGUMENT_IS_VALUE or one.name == "STOP"
}
