import pickle
import time

import numpy as np
import pytest

from flyweight.sensitivity.pickled_table import read_pickle
from flyweight.untrusted.failures import LimitError

PYTHON_2 = (
    b"(dp0\nS'conv'\np1\n(dp2\nF0.1\ncnumpy.core.multiarray\nscalar\np3\n(cnumpy\ndtype\np4\n"
    b"(S'f8'\np5\nI0\nI1\ntp6\nRp7\n(I3\nS'<'\np8\nNNNI-1\nI-1\nI0\ntp9\nbS'\\x00\\x00\\x00\\x00"
    b"\\x00\\x00\\xd0?'\np10\ntp11\nRp12\nss."
)


@pytest.mark.parametrize("protocol", range(6))
def test_tables_of_every_protocol(protocol):
    table = {"a": {0.1: 0.25, np.float64(0.2): np.float32(0.5), 0.3: -1}, "ä": {}}
    assert read_pickle(pickle.dumps(table, protocol)) == table


def test_python_2_wrote_the_bytes_of_a_number_as_text():
    assert read_pickle(PYTHON_2) == {"conv": {0.1: 0.25}}


def test_big_endian_numbers():
    data = PYTHON_2.replace(b"S'<'", b"S'>'")
    swapped = b"S'\\x3f\\xd0\\x00\\x00\\x00\\x00\\x00\\x00'"
    data = data.replace(b"S'" + rb"\x00\x00\x00\x00" + rb"\x00\x00\xd0?" + b"'", swapped)
    assert swapped in data
    assert read_pickle(data) == {"conv": {0.1: 0.25}}


NESTED_KEY = b"\x80\x02}N" + b"\x85" * 200_000 + b"K\x01s."
DOUBLED_KEY = b"}" + b"K\x01K\x01\x86" + b"".join(b"q\x00h\x00\x86" for _ in range(60)) + b"K\x01s."


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02}r\x00\x00\x00\x10Xa",  # a memo of 2**28 places, in the reader in C
        NESTED_KEY,
        DOUBLED_KEY,
        b"\x80\x05}\x8c\x01a\x96" + b"\xff" * 8 + b"s.",  # a byte array of 2**63 bytes
        b"\x80\x02B\xff\xff\xff\xff.",  # bytes beyond the end
        b"\x8a\xff" + b"\x7f" * 255 + b".",  # a whole number of 2040 bits
        b"s.",
        b"t.",
        b"b.",
        b"R.",
        b"h\x05.",
        b".",
        b"",
        pickle.dumps([1]),
        pickle.dumps({(1, 2): 3}),
        pickle.dumps({"a": {0.1: 10**400}}),
    ],
)
def test_anything_else_is_refused_at_once(data):
    began = time.monotonic()
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever it is, `refusing` makes one of it
        read_pickle(data)
    assert time.monotonic() - began < 2


def test_a_memo_takes_no_room_for_places_that_are_not_used():
    assert read_pickle(b"\x80\x02}r\x00\x00\x00\x10.") == {}
    assert read_pickle(b"}p1000000000\n.") == {}


def test_the_number_of_operations_is_bounded():
    with pytest.raises(LimitError, match="1,000,000 operations"):
        read_pickle(b"N" * 1_000_001 + b".")
