"""Mutations of files: of bytes, of words of texts, of values of JSON, of headers of tensors.

Every mutation is a function of a random generator, so a case can be made again from its number.
"""

import json
import random
import struct
from collections.abc import Callable, Sequence
from typing import Any

Mutate = Callable[[random.Random, bytes, Sequence[bytes]], bytes]

WORDS = (
    *(
        b"",
        b"0",
        b"-1",
        b"1e400",
        b"-1e308",
        b"5e-324",
        b"nan",
        b"inf",
        b"NaN",
        b"Infinity",
        b"null",
    ),
    *(b"true", b"9" * 30, b"9" * 400, b"9" * 5000, b"0x" + b"f" * 5000, b"1" + b":59" * 300),
    *(
        b"\x00",
        b"\x1b[2J",
        b"\xff\xfe",
        b"\xed\xa0\x80",
        "\u202e".encode(),
        b"a" * 5000,
        b"../../etc",
    ),
    *(b"[" * 3000, b"{" * 3000, b"{a: " * 500, b"<a>" * 3000, b"(" * 300, b"'", b'"', b"&a", b"*a"),
    *(b"!!int ", b"!!timestamp x", b"!!python/name:os.system", b"<<: *a", b"---", b"#", b"\\ud800"),
)
"""Words that parsers fail on, each in its own way."""

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 0.5, -0.5, 2**31, 2**63, -(2**63) - 1, 10**12, 10**39, 10**400),
    *(1e308, -1e308, 5e-324, float("nan"), float("inf"), "", "x", "9" * 5000, "\x1b[2J", "\x00"),
    *(
        "\ud800",
        "a" * 3000,
        [],
        {},
        [[]],
        [0] * 2000,
        {"a": {"a": {}}},
        "cpu",
        "float32",
        "/dev/zero",
    ),
)
"""Values that replace one of a document."""
DEEP = "DEEP"  # Stands for a value that nests deeper than a document can be built.


def mutated(kind: str, source: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Return a mutation of one of the seeds.

    Args:
        kind: A key of `KINDS`.
        source: Chooses everything.
        seeds: Good files of one reader.
    """
    data = source.choice(seeds)
    for _ in range(source.choice((1, 1, 1, 2, 4, 9))):
        data = source.choice(KINDS[kind])(source, data, seeds)
    return data


def flip(source: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    """Change bytes."""
    changed = bytearray(data or b"\0")
    for _ in range(source.choice((1, 1, 2, 8))):
        changed[source.randrange(len(changed))] = source.choice((0, 255, source.randrange(256)))
    return bytes(changed)


def cut(source: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    """Remove the end, or a part."""
    first, last = sorted((source.randint(0, len(data)), source.randint(0, len(data))))
    return data[:first] if source.random() < 0.5 else data[:first] + data[last:]


def repeat(source: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    """Repeat a part."""
    first = source.randint(0, len(data))
    part = data[first : first + source.choice((1, 4, 40, 400))]
    return data[:first] + part * source.choice((1, 2, 50)) + data[first:]


def splice(source: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """Join the beginning of one file and the end of another."""
    other = source.choice(seeds)
    return data[: source.randint(0, len(data))] + other[source.randint(0, len(other)) :]


def insert(source: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    """Put a word somewhere."""
    place = source.randint(0, len(data))
    return data[:place] + source.choice(WORDS) + data[place:]


def replace_word(source: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    """Replace one word of a text by another."""
    breaks = [place for place, byte in enumerate(data[:20_000]) if byte in b" \n\t,:[]{}<>=\"'"]
    if len(breaks) < 2:
        return insert(source, data, ())
    first = source.randrange(len(breaks) - 1)
    return data[: breaks[first] + 1] + source.choice(WORDS) + data[breaks[first + 1] :]


def replace_value(source: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    """Replace, remove or repeat one value of a JSON document."""
    try:
        return _json_bytes(_changed(source, json.loads(data)))
    except (ValueError, RecursionError):
        return flip(source, data, ())


def change_header(source: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    """Change a value in the header of a `.safetensors` file, or in the JSON texts within it."""
    try:
        (size,) = struct.unpack("<Q", data[:8])
        header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
        texts = header.get("__metadata__") or {}
        if texts and source.random() < 0.7:
            key = source.choice(sorted(texts))
            texts[key] = _json_bytes(_changed(source, json.loads(texts[key]))).decode()
        else:
            header = _changed(source, header)
        text = _json_bytes(header)
    except (ValueError, RecursionError, struct.error, AttributeError, TypeError):
        return flip(source, data, ())
    return struct.pack("<Q", len(text)) + text + body


def _changed(source: random.Random, value: Any) -> Any:
    places = list(_places(value))
    if not places:
        return source.choice(VALUES)
    holder, key = source.choice(places)
    action = source.random()
    if action < 0.7:
        holder[key] = source.choice((*VALUES, DEEP))
    elif action < 0.85:
        del holder[key]
    elif isinstance(holder, list):
        holder.insert(source.randint(0, len(holder)), holder[key])
    else:
        holder[source.choice(("x", "", "0", "format", "\x1b"))] = holder[key]
    return value


def _places(value: Any, most: int = 400) -> list[tuple[Any, Any]]:
    """Return (holder, key) of the values of a document, the outermost first."""
    found, level = [], [value] if isinstance(value, (dict, list)) else []
    while level and len(found) < most:
        inner = []
        for holder in level:
            items = holder.items() if isinstance(holder, dict) else enumerate(holder)
            for key, item in list(items)[:60]:
                found.append((holder, key))
                if isinstance(item, (dict, list)):
                    inner.append(item)
        level = inner
    return found


def _json_bytes(value: Any) -> bytes:
    text = json.dumps(value)
    return text.replace(f'"{DEEP}"', "[" * 1500 + "]" * 1500).encode("utf-8", "surrogatepass")


BYTES: tuple[Mutate, ...] = (flip, flip, cut, repeat, splice, insert)
TEXT: tuple[Mutate, ...] = (*BYTES, replace_word, replace_word, replace_word, replace_word)
KINDS = {
    "bytes": BYTES,
    "text": TEXT,
    "json": (*TEXT, *[replace_value] * 10),
    "tensors": (*BYTES, *[change_header] * 12),
}
"""Kinds of files, and what is done to them; what stands there several times happens more often."""
