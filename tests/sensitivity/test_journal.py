import json

import pytest

from flyweight.errors import DataError
from flyweight.sensitivity.journal import Journal
from flyweight.sensitivity.scanned_cuts import BASELINE

FACTS = {"graph": "g", "weights": "w"}
STATES = {BASELINE: (1.0, 2), ("a", 0.5): (0.5, 2)}


def test_what_was_done_is_there_when_a_scan_goes_on(tmp_path):
    path = tmp_path / "sens.json"
    Journal(path, FACTS).add(0, "first", STATES)
    journal = Journal(path, FACTS)
    assert journal.held(0, "first") == STATES
    assert journal.held(1, "second") == {}
    journal.add(1, "second", STATES)
    assert list(journal.all(2)) == [STATES, STATES]
    journal.close()
    assert list(tmp_path.iterdir()) == []


def test_another_network_or_another_batch_is_named(tmp_path):
    path = tmp_path / "sens.json"
    Journal(path, FACTS).add(0, "first", STATES)
    with pytest.raises(DataError, match="resumed with the weights that it began with"):
        Journal(path, {**FACTS, "weights": "v"})
    with pytest.raises(DataError, match="another batch number 1"):
        Journal(path, FACTS).held(0, "other")


def test_a_damaged_part_is_named(tmp_path):
    path = tmp_path / "sens.json"
    Journal(path, FACTS).add(0, "first", STATES)
    part = tmp_path / "sens.json.parts" / "batch-000000.json"
    part.write_text(json.dumps({"batch": "first"}))
    with pytest.raises(DataError, match=r"batch-000000\.json"):
        list(Journal(path, FACTS).all(1))


def test_without_a_file_states_stay_in_memory():
    journal = Journal(None, FACTS)
    assert journal.held(0, "first") == {}
    journal.add(0, "first", STATES)
    journal.add(0, "first", {("b", 0.5): (0.25, 2)})
    assert list(journal.all(1)) == [{**STATES, ("b", 0.5): (0.25, 2)}]
    journal.close()


def test_parts_without_a_note_are_not_used(tmp_path):
    path = tmp_path / "sens.json"
    Journal(path, FACTS).add(0, "first", STATES)
    (tmp_path / "sens.json.parts" / "made_from.json").unlink()
    assert Journal(path, {**FACTS, "weights": "v"}).held(0, "first") == {}
