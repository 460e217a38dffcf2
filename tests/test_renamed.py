"""docs/design/renamed.csv leads from the names of 0.1.0 to names that exist."""

import csv
from importlib import import_module
from pathlib import Path

import pytest

ROWS = Path(__file__).resolve().parents[1] / "docs" / "design" / "renamed.csv"


def _resolve(name):
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = import_module(".".join(parts[:end]))
        except ImportError:
            continue
        for part in parts[end:]:
            found = getattr(found, part)
        return found
    raise AttributeError(name)


def test_every_new_name_exists_and_no_old_name_comes_twice():
    with ROWS.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 800
    old = [row["old"] for row in rows]
    assert len(set(old)) == len(old)
    lost = []
    for row in rows:
        try:
            _resolve(row["new"])
        except AttributeError:
            lost.append(row)
    assert lost == []


def test_a_name_that_does_not_exist_is_noticed():
    with pytest.raises(AttributeError):
        _resolve("flyweight.files.nowhere")
