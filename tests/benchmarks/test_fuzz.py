"""The fuzz benchmark finds every kind of failure, and the readers have none in a small sample."""

import importlib
import os
import random
import time
import warnings
from pathlib import Path
from types import ModuleType

import pytest

from flyweight.errors import DataError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        return importlib.import_module("fuzz")


@pytest.fixture(scope="module")
def known(fuzz, tmp_path_factory):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fuzz.readers(tmp_path_factory.mktemp("seeds"))


def test_good_files_are_read(fuzz, known, tmp_path):
    for reader in known:
        for place, seed in enumerate(reader.seeds):
            folder = tmp_path / f"{reader.name}{place}"
            assert fuzz.outcome_of(reader, seed, folder) == (fuzz.READ, ""), reader.name


def test_a_sample_of_mutated_files(fuzz, known):
    counts = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for reader in known:
            cases = max(4, round(25 * reader.weight))
            counts[reader.name] = fuzz.run(reader, range(cases), 1, fuzz.Limits(20, 1024))
    failures = {name: one.failures for name, one in counts.items() if one.failures}
    assert not failures
    assert sum(one.outcomes[fuzz.REFUSED] for one in counts.values()) > 100
    assert sum(one.outcomes[fuzz.READ] for one in counts.values()) > 30


def test_a_case_is_a_function_of_its_numbers(fuzz, known):
    reader = next(one for one in known if one.name == "coco")
    assert [fuzz.file_of(reader, 3, case) for case in range(50)] == [
        fuzz.file_of(reader, 3, case) for case in range(50)
    ]
    assert len({fuzz.file_of(reader, 3, case) for case in range(50)}) > 30


def crash(path):
    os.abort()


def hang(path):
    while True:
        time.sleep(0.01)


def eat(path):
    return len(b"\1" * (200 * 2**20))


def break_a_promise(path):
    raise KeyError("x")


class TwoLinesError(DataError):
    def __str__(self):
        return "a\nb"


def two_lines(path):
    raise TwoLinesError


@pytest.mark.parametrize(
    ("read", "what"),
    [
        (crash, "SIGABRT"),
        (hang, "over the limit of seconds"),
        (eat, "MiB"),
        (break_a_promise, "KeyError: 'x'"),
        (two_lines, "two lines"),
    ],
)
def test_every_kind_of_failure_is_counted(fuzz, known, read, what):
    seen = type(known[0])("x", "bytes", (DataError,), (b"abc",), read)
    counts = fuzz.run(seen, range(2), 0, fuzz.Limits(seconds=2, mib=64))
    assert counts.outcomes == {fuzz.FAILED: 2}
    assert sorted(counts.failures) == [0, 1]
    assert all(what in text for text in counts.failures.values())


def test_a_document_that_is_one_number_is_changed_too(fuzz):
    # A mutation may have made a number of it; the next one must not fail on that.
    mutations = importlib.import_module("fuzz_mutations")
    assert mutations._places(1.5) == []
    assert mutations._changed(random.Random(0), 1.5) in mutations.VALUES
