import re
from pathlib import Path

from flyweight.data.problem_kinds import KINDS

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "flyweight"


def test_those_that_stop_training_come_first():
    stops = [kind.stops for kind in KINDS.values()]
    assert stops == sorted(stops, reverse=True)


def test_every_kind_has_a_meaning_and_a_remedy():
    for name, kind in KINDS.items():
        assert re.fullmatch(r"[a-z0-9_]+", name)
        assert re.match(r"[A-Z]", kind.remedy), name
        assert kind.meaning[0].islower(), name
        assert not kind.meaning.endswith("."), name


def test_every_kind_is_found_by_some_check():
    paths = [path for path in SOURCE.rglob("*.py") if path.name != "problem_kinds.py"]
    text = "\n".join(path.read_text(encoding="utf-8") for path in paths)
    assert [name for name in KINDS if f'"{name}"' not in text] == []


def test_the_documents_have_the_table():
    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    for name, kind in KINDS.items():
        stops = "yes" if kind.stops else "no"
        assert f"| `{name}` | {stops} | {kind.meaning} | {kind.remedy} |\n" in text
