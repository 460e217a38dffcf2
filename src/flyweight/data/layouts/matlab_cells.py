"""MATLAB files of version 5 to 7: cells of texts and numbers, read in Python.

SciPy's reader, in C, ends the process for some damaged files and reserves gigabytes for others.
This one reads what lists of annotations have (cells, texts, arrays of real numbers) and compares
every size with the bytes that are there before it makes anything.
"""

import math
import struct
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from flyweight.untrusted.failures import LimitError

_HEADER_BYTES = 128
_MOST_BYTES = 256 * 2**20  # Of one variable, decompressed.
_MOST_DEPTH = 8
_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}
"""Type of a stored element to NumPy's name."""
_ENCODINGS = {2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
"""Type of a stored text to its encoding; 16-bit code units are those of UTF-16."""
_CELL, _TEXT = 1, 4
_NUMERIC = range(6, 16)


@dataclass
class _Bytes:
    """The part of a file that one element may read."""

    data: bytes
    order: str
    place: int = 0

    def take(self, count: int) -> bytes:
        if not 0 <= count <= len(self.data) - self.place:
            raise ValueError(f"{count:,} bytes where {len(self.data) - self.place:,} are left")
        found = self.data[self.place : self.place + count]
        self.place += count
        return found

    def element(self) -> tuple[int, bytes]:
        """Return type and contents of the next element."""
        kind, size = struct.unpack(f"{self.order}II", self.take(8))
        if kind >> 16:  # Up to four bytes are stored within the tag itself.
            return kind & 0xFFFF, self.data[self.place - 4 : self.place][: min(kind >> 16, 4)]
        found = self.take(size)
        if kind != _COMPRESSED:
            self.place = min(len(self.data), self.place + -size % 8)
        return kind, found


def read_cells(data: bytes, names: Collection[str]) -> dict[str, Any]:
    """Return some variables of a MATLAB file.

    Args:
        data: The file.
        names: The variables; those that the file lacks are left out.

    Returns:
        Per variable an array: of objects for a cell, of one text per row, or of numbers, each of
        the shape in the file.

    Raises:
        ValueError: The file is damaged, of another version, or a variable is of another kind.
        Exception: Whatever else damaged data leads to; see `untrusted.failures.refusing`.
    """
    marks = {b"IM": "<", b"MI": ">"}
    order = marks.get(data[_HEADER_BYTES - 2 : _HEADER_BYTES])
    if order is None:
        raise ValueError("its header is not that of such a file")
    found = {}
    for kind, contents in _elements(_Bytes(data, order, _HEADER_BYTES)):
        body = contents
        if kind == _COMPRESSED:
            inner = _Bytes(_decompressed(contents), order)
            kind, body = inner.element()
        if kind == _MATRIX:
            name, value = _matrix(_Bytes(body, order), names, 0)
            if name in names:
                found[name] = value
    return found


def _elements(file: _Bytes) -> Iterator[tuple[int, bytes]]:
    while len(file.data) - file.place >= 8:
        yield file.element()


def _decompressed(data: bytes) -> bytes:
    machine = zlib.decompressobj()
    found = machine.decompress(data, _MOST_BYTES)
    if machine.unconsumed_tail:
        raise LimitError(f"a variable of more than the {_MOST_BYTES:,} bytes that are read")
    return found


def _matrix(file: _Bytes, names: Collection[str], depth: int) -> tuple[str, Any]:
    """Return name and value; None as the value of a variable that is not requested."""
    if depth > _MOST_DEPTH:
        raise LimitError(f"cells nest deeper than the {_MOST_DEPTH} levels that are read")
    if not file.data:  # An empty cell.
        return "", np.empty((0, 0))
    flags = struct.unpack(f"{file.order}I", file.element()[1][:4])[0]
    kind, is_complex = flags & 0xFF, bool(flags & 0x800)
    sizes = file.element()[1]
    shape = struct.unpack(f"{file.order}{len(sizes) // 4}i", sizes)
    name = file.element()[1].decode("latin-1")
    if depth == 0 and name not in names:
        return name, None
    if min(shape, default=0) < 0 or not 2 <= len(shape) <= 3 or is_complex:
        raise ValueError(f"an array of shape {list(shape)}")
    if kind == _CELL:
        return name, _cell(file, shape, depth)
    if kind == _TEXT:
        return name, _rows(file, shape)
    if kind in _NUMERIC:
        return name, _numbers(file, shape)
    raise ValueError(f"an array of class {kind}, which lists never have")


def _cell(file: _Bytes, shape: tuple[int, ...], depth: int) -> Any:
    count = math.prod(shape)
    if count > (len(file.data) - file.place) // 8:
        raise ValueError(f"a cell of {count:,} items in {len(file.data):,} bytes")
    items = np.empty(count, dtype=object)
    for place in range(count):
        kind, contents = file.element()
        if kind != _MATRIX:
            raise ValueError(f"an item of type {kind} in a cell")
        items[place] = _matrix(_Bytes(contents, file.order), (), depth + 1)[1]
    return items.reshape(shape, order="F")


def _rows(file: _Bytes, shape: tuple[int, ...]) -> Any:
    kind, contents = file.element()
    encoding = _ENCODINGS[kind] + ("" if kind in (2, 16) else {"<": "-le", ">": "-be"}[file.order])
    text = contents.decode(encoding)
    if len(text) != math.prod(shape):
        raise ValueError(f"a text of {len(text)} characters with the shape {list(shape)}")
    if not text:
        return np.empty(0, dtype=object)  # however many rows of nothing it states
    # Characters are stored column by column.
    return np.array([text[row :: shape[0]] for row in range(shape[0])], dtype=object)


def _numbers(file: _Bytes, shape: tuple[int, ...]) -> Any:
    kind, contents = file.element()
    values = np.frombuffer(contents, file.order + _NUMBERS[kind])
    return values.reshape(shape, order="F")
