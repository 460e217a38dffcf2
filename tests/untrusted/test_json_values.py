import json

import pytest

from flyweight.untrusted.failures import LimitError
from flyweight.untrusted.json_values import MOST_DEPTH, MOST_DIGITS, parse_json


def nested(depth, opening="[", closing="]"):
    return opening * depth + closing * depth


@pytest.mark.parametrize("text", ["0", '{"a": [1, 2.5, null, "x"]}', "1e5", "NaN"])
def test_the_values_of_the_standard_library(text):
    assert repr(parse_json(text)) == repr(parse_json(text.encode())) == repr(json.loads(text))


@pytest.mark.parametrize("make", [str, str.encode], ids=["text", "bytes"])
def test_depth_is_bounded(make):
    assert parse_json(make(nested(MOST_DEPTH))) is not None
    assert len(parse_json(make("[" + ",".join(["[]"] * 500) + "]"))) == 500
    for text in (nested(MOST_DEPTH + 1), nested(100_000), '{"a":' * 200 + "1" + "}" * 200):
        with pytest.raises(LimitError, match="nests deeper than the 100 levels"):
            parse_json(make(text))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32"])
def test_digits_are_bounded(encoding):
    most = "9" * MOST_DIGITS
    assert parse_json(f"[{most}, -{most}]".encode(encoding)) == [int(most), -int(most)]
    for digits in (most + "9", f"-{most}9", "1" * 5000):
        with pytest.raises(
            LimitError, match=r"a whole number of [0-9,]+ digits, where 40 are read"
        ):
            parse_json(f"[{digits}]".encode(encoding))


def test_digits_of_texts_and_fractions_are_no_whole_numbers():
    text = json.dumps({"counts": "0" * 500}).replace("}", ', "x": 0.' + "1" * 60 + "}")
    assert parse_json(text) == {"counts": "0" * 500, "x": pytest.approx(1 / 9)}
