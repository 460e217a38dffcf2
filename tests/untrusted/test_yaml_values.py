import time

import pytest

from flyweight.untrusted.failures import LimitError
from flyweight.untrusted.yaml_values import (
    MOST_CHARACTERS,
    MOST_DEPTH,
    RepeatedKeyError,
    parse_yaml,
)


def test_plain_values():
    text = "a: [1, 0x10, 1.5, yes, null, 2024-01-02, 'x']\nb: &b {c: 1}\nd: {<<: *b, e: *b}\n"
    found = parse_yaml(text)
    assert found["a"][:5] == [1, 16, 1.5, True, None]
    assert found["d"] == {"c": 1, "e": {"c": 1}}
    assert parse_yaml("") is None


def laughs(depth):
    if not depth:
        return "&b0 [x,x,x,x,x,x,x,x,x,x]"
    return f"&b{depth} [{','.join([laughs(depth - 1)] + [f'*b{depth - 1}'] * 9)}]"


MERGES = "m0: &m0 {a: 1}\n" + "".join(
    f"m{place}: &m{place} {{<<: [{','.join([f'*m{place - 1}'] * 10)}]}}\n" for place in range(1, 8)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: " + laughs(8), "200,000 values"),
        (MERGES, "200,000 values"),
        ("&a [*a]", "an alias of 'a', which is not complete before it"),
        ("a: *b", "an alias of 'b', which is not complete before it"),
        ("[" * (MOST_DEPTH + 1), "nests deeper than the 50 levels"),
        ("{a: " * 3000, "nests deeper than the 50 levels"),
        ("a: 0x" + "f" * 10_000, "a whole number of 10,002 characters"),
        ("a: 1" + ":59" * 500, "a whole number of"),
        ("a: " + "1" * 5000, "a whole number of 5,000 characters"),
        ("a: " + "1" * 100 + ".0", "a number of 102 characters"),
        ("#" * (MOST_CHARACTERS + 1), "1,048,577 characters"),
    ],
)
def test_the_bounds(text, said):
    began = time.monotonic()
    with pytest.raises(LimitError, match=said):
        parse_yaml(text)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a:\n  - !!int ''\n", "'' must be a whole number, line 2"),
        ("a: !!bool x", "'x' must be a yes or no, line 1"),
        ("a: !!timestamp x", "'x' must be a date, line 1"),
        ("a: 2024-99-99", "'2024-99-99' must be a date, line 1"),
        ("a: [", "did not find expected node content, line"),
        ("? [a]\n: b", "unhashable key, line 1"),
        ("--- a\n--- b\n", "another document, line 2"),
        ("a: !!python/name:os.system", "could not determine a constructor"),
    ],
)
def test_what_is_no_yaml_is_named_with_its_line(text, said):
    with pytest.raises(ValueError, match=said):
        parse_yaml(text)


@pytest.mark.parametrize("text", ["a: \0", "a: \x1a", "a: \ud800", 'a: "\\ud800"'])
def test_characters_that_yaml_has_not(text):
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever it is, `refusing` makes one of it
        parse_yaml(text)


def test_repeated_keys():
    text = "a: 1\nb: {c: [1, {a: 1}], d: 2}\na: 2\n"
    assert parse_yaml(text)["a"] == 2
    with pytest.raises(RepeatedKeyError) as error:
        parse_yaml(text, unique_keys=True)
    assert (error.value.key, error.value.line) == ("a", 3)
    parse_yaml("a: [a, a]\nb: {a: a, b: a}\n", unique_keys=True)
