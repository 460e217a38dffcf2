import json
import math
from pathlib import Path

import pytest
from rich.text import Text

from flyweight.cli.console import note_busy_machine, say, show, show_json, show_styled
from flyweight.report.text_table import columns, metrics_table


def test_results_and_talk_are_kept_apart(capsys):
    show("result\n")
    say("talk")
    assert capsys.readouterr() == ("result\n", "talk\n")


def test_json_is_strict(capsys):
    show_json({"a": math.nan, "b": [math.inf, 1.5, Path("x/y")], "c": {"d": (1, None, True)}})
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert found == {"a": None, "b": [None, 1.5, "x/y"], "c": {"d": [1, None, True]}}


def test_columns_are_aligned():
    assert columns([("a", "b"), ("long", "100")]) == "a       b\nlong  100"


def test_metrics_of_nothing():
    assert metrics_table({}) == ""


def test_a_busy_machine_is_told_apart_from_results(capsys, monkeypatch):
    monkeypatch.delenv("FLYWEIGHT_IGNORE_LOAD")
    for load, lines in ((0.0, 0), (1e4, 1)):
        monkeypatch.setattr("flyweight.processors.load_average", lambda load=load: load)
        note_busy_machine()
        said = capsys.readouterr()
        assert (said.out, len(said.err.splitlines())) == ("", lines)


def test_control_characters_never_reach_the_terminal(capsys):
    for write in (show, say):
        write("\x1b[2Jcat\x07 caf\udce9")
        out, err = capsys.readouterr()
        assert out + err == "\\x1b[2Jcat\\x07 caf\\udce9\n"
    show_styled(lambda width: Text("\x1b]0;x\x07", style="bold"))
    assert "\x07" not in capsys.readouterr().out
