import contextlib
import io
import random
import time
import tracemalloc

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from flyweight.data.layouts.matlab_cells import read_cells


def cells(*items):
    column = np.empty((len(items), 1), dtype=object)
    for place, item in enumerate(items):
        column[place, 0] = item
    return column


VALUES = {
    "texts": cells("a", "0--Parade", "ü", ""),
    "numbers": cells(np.arange(12.0).reshape(3, 4), np.array([[7]], np.uint8), np.zeros((0, 4))),
    "nested": cells(cells(np.int16([[1, -2]])), cells("x", "y")),
    "plain": np.array([[1.5, 2], [3, 4]], np.float32),
}


def saved(**options):
    file = io.BytesIO()
    savemat(file, VALUES, **options)
    return file.getvalue()


def same(one, other):
    if isinstance(one, np.ndarray) and one.dtype.kind == "O" and one.ndim == other.ndim == 2:
        assert one.shape == other.shape
        for mine, theirs in zip(one.ravel(), other.ravel(), strict=True):
            same(mine, theirs)
    else:
        assert np.array_equal(one, other), (one, other)


@pytest.mark.parametrize("compressed", [False, True])
def test_the_values_of_scipy(compressed):
    data = saved(do_compression=compressed)
    found, wanted = read_cells(data, list(VALUES)), loadmat(io.BytesIO(data))
    assert list(found) == list(VALUES)
    for name in VALUES:
        same(found[name], wanted[name])


def test_other_variables_are_left_out():
    assert list(read_cells(saved(), ["plain", "no"])) == ["plain"]


@pytest.mark.parametrize("value", [{"a": 1}, np.array([[1 + 2j]]), b"x"])
def test_what_lists_never_have(value):
    file = io.BytesIO()
    savemat(file, {"a": value})
    if isinstance(value, bytes):
        assert read_cells(file.getvalue(), ["a"])["a"] == ["x"]
        return
    with pytest.raises(ValueError, match="an array of"):
        read_cells(file.getvalue(), ["a"])


@pytest.mark.parametrize("data", [b"", b"junk" * 50, saved()[:127], b"MATLAB 7.3" + bytes(600)])
def test_other_files(data):
    with pytest.raises(ValueError, match="its header is not"):
        read_cells(data, ["plain"])


def test_a_compressed_variable_has_a_bound(monkeypatch):
    monkeypatch.setattr("flyweight.data.layouts.matlab_cells._MOST_BYTES", 100)
    with pytest.raises(ValueError, match="more than the 100 bytes"):
        read_cells(saved(do_compression=True), list(VALUES))


def test_damaged_files_take_little_time_and_memory():
    source, good = random.Random(0), saved()
    began = time.monotonic()
    tracemalloc.start()
    for _ in range(1000):
        data = bytearray(good)
        for _ in range(4):
            data[source.randrange(128, len(data))] = source.choice((0, 255, source.randrange(256)))
        with contextlib.suppress(Exception):  # of any class; `refusing` makes one of them
            read_cells(bytes(data), list(VALUES))
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()
    assert time.monotonic() - began < 60
