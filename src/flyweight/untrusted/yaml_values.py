"""YAML from outside: bounded in length, depth, digits, and in what its aliases expand to."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import yaml

from flyweight.untrusted.failures import LimitError

try:
    from yaml import CSafeLoader as _SafeLoader
except ImportError:  # PyYAML without its library in C
    from yaml import SafeLoader as _SafeLoader  # type: ignore[assignment]

MOST_CHARACTERS = 2**20
"""Characters of one text."""
MOST_DEPTH = 50
"""Lists and mappings within each other."""
MOST_VALUES = 200_000
"""Values of one text after every alias is replaced by what it stands for."""
MOST_SCALAR_CHARACTERS = 64
"""Characters of one number, date or truth value."""


class RepeatedKeyError(ValueError):
    """A mapping contains a key twice, where YAML would take the last.

    Attributes:
        key: The key.
        line: Line of the second one, from 1.
    """

    def __init__(self, key: str, line: int) -> None:
        super().__init__(f"the key '{key}' again, in line {line}")
        self.key, self.line = key, line


def parse_yaml(text: str, *, unique_keys: bool = False) -> Any:
    """Return the values of a YAML text: plain ones alone.

    Args:
        text: The YAML.
        unique_keys: Refuse a mapping that contains a key twice.

    Raises:
        LimitError: The text is longer, deeper or larger than what is read.
        RepeatedKeyError: See `unique_keys`.
        ValueError: It is no YAML; the message has the line.
        Exception: Whatever else PyYAML raises; see `failures.refusing`.
    """
    if len(text) > MOST_CHARACTERS:
        raise LimitError(f"{len(text):,} characters, where {MOST_CHARACTERS:,} are read")
    try:
        _require_bounded(text, unique_keys)
        loader = _BoundedLoader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}" if mark is not None else ""
        problem = ": ".join(text for text in (error.context, error.problem) if text)
        raise ValueError(f"{problem}{where}") from error


class _BoundedLoader(_SafeLoader):
    """Makes plain values, and no number of more characters than any real one has."""


def _bounded(kind: str, make: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def make_bounded(loader: Any, node: Any) -> Any:
        text = loader.construct_scalar(node)
        if len(text) > MOST_SCALAR_CHARACTERS:
            raise LimitError(
                f"a {kind} of {len(text):,} characters, where {MOST_SCALAR_CHARACTERS} are read"
            )
        try:
            return make(loader, node)
        except Exception as error:  # PyYAML's own, of several kinds, do not name the value
            mark = node.start_mark
            problem = f"'{text}' must be a {kind}"
            raise yaml.constructor.ConstructorError(problem=problem, problem_mark=mark) from error

    return make_bounded


for _kind, _name in (
    ("whole number", "int"),
    ("number", "float"),
    ("yes or no", "bool"),
    ("date", "timestamp"),
):
    _tag = f"tag:yaml.org,2002:{_name}"
    _BoundedLoader.add_constructor(_tag, _bounded(_kind, _SafeLoader.yaml_constructors[_tag]))


@dataclass
class _Open:
    """A list or mapping that has begun.

    Attributes:
        anchor: Its name for aliases.
        values: Values in it so far, itself included and aliases expanded.
        keys: Keys so far, where it is a mapping.
        at_key: Whether the next value is a key.
    """

    anchor: str | None = None
    values: int = 1
    keys: set[str] | None = None
    at_key: bool = False


def _require_bounded(text: str, unique_keys: bool) -> None:
    """Check a text by its events, before any value is made: those are as many as the text is long.

    An alias counts as the values that it stands for, because merged mappings and everything that
    walks over the result meet them again each time.
    """
    sizes: dict[str, int] = {}
    stack = [_Open()]
    for event in yaml.parse(text, Loader=_SafeLoader):
        if not isinstance(event, _ENDS):
            _begin(stack[-1], event, unique_keys)
        if isinstance(event, _STARTS):
            mapping = isinstance(event, yaml.MappingStartEvent)
            stack.append(_Open(event.anchor, keys=set() if mapping else None, at_key=mapping))
            if len(stack) > MOST_DEPTH + 1:
                raise LimitError(f"it nests deeper than the {MOST_DEPTH} levels that are read")
        elif isinstance(event, _ENDS):
            closed = stack.pop()
            _add(stack[-1], sizes, closed.anchor, closed.values)
        elif isinstance(event, yaml.ScalarEvent):
            _add(stack[-1], sizes, event.anchor, 1)
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise LimitError(f"an alias of '{event.anchor}', which is not complete before it")
            _add(stack[-1], sizes, None, sizes[event.anchor])


_STARTS = (yaml.SequenceStartEvent, yaml.MappingStartEvent)
_ENDS = (yaml.SequenceEndEvent, yaml.MappingEndEvent)


def _begin(where: _Open, event: Any, unique_keys: bool) -> None:
    """Take note of a value that begins in `where`, of its key if it is one."""
    if where.keys is None or not isinstance(event, yaml.NodeEvent):
        return
    if unique_keys and where.at_key and isinstance(event, yaml.ScalarEvent):
        if event.value in where.keys:
            raise RepeatedKeyError(event.value, _line(event))
        where.keys.add(event.value)
    where.at_key = not where.at_key


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _add(where: _Open, sizes: dict[str, int], anchor: str | None, values: int) -> None:
    """Count a complete value in what it stands in."""
    if anchor is not None:
        sizes[anchor] = values
    where.values += values
    if where.values > MOST_VALUES:
        raise LimitError(f"more than the {MOST_VALUES:,} values that are read, aliases expanded")
