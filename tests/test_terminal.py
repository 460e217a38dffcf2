import sys
import time

import pytest

from flyweight.progress import progress_over
from flyweight.terminal import BarTask, LinesTask, TerminalProgress, progress_line


def as_terminal(monkeypatch):
    """Called within a test: its fixtures see another `sys.stderr`."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    return TerminalProgress()


def test_the_line_is_the_promised_one():
    found = progress_line("step", 120, 1000, {"loss": 12.34, "lr": 0.001}, 200.0)
    assert found == "step 120/1000  loss 12.34  lr 0.0010  eta 0:03:20"
    found = progress_line("step", 1, 2, {"loss": 0.5, "lr": 0.0}, 0.9)
    assert found == "step 1/2  loss 0.5  lr 0.0  eta 0:00:00"


def test_amounts_of_work_are_shares_and_unknown_totals_are_counts():
    assert progress_line("layers", 2.5, 10.0, {}) == "layers 25%"
    assert progress_line("images", 3, None, {}) == "images 3"


def test_lines_come_every_so_often_and_at_the_end(capsys, monkeypatch):
    clock = iter([100.0, 104.0, 109.0])
    monkeypatch.setattr("flyweight.terminal.time.monotonic", lambda: next(clock))
    lines = TerminalProgress().start("step", 7, done=2, lines_every=4)
    for done in range(3, 8):
        lines.update(done, {"loss": 1.0, "lr": 0.1})
    lines.finish()
    shown = capsys.readouterr()
    assert shown.out == ""
    # Two steps in four seconds leave three steps of two seconds.
    assert shown.err.splitlines() == [
        "step 4/7  loss 1  lr 0.10  eta 0:00:06",
        "step 7/7  loss 1  lr 0.10  eta 0:00:00",
    ]


def test_a_terminal_gets_a_bar_and_others_get_nothing(monkeypatch, capsys):
    terminal = as_terminal(monkeypatch)
    bar = terminal.start("step", 5, done=3, lines_every=1)
    assert isinstance(bar, BarTask)
    bar.update(4, {"loss": 1.5, "lr": 0.001})
    terminal.note("step 4/5  map [0.5]")
    assert bar.bar.completed == 4
    bar.finish()
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "map [0.5]" in shown.err
    assert "loss 1.5  lr 0.0010" in shown.err


def test_without_a_terminal_only_notes_and_wanted_lines_are_written(capsys):
    progress = TerminalProgress()
    task = progress.start("scan", 2)
    assert isinstance(task, LinesTask)
    task.update(1)
    task.update(2)
    task.finish()
    progress.note("a note")
    assert capsys.readouterr().err == "a note\n"


def test_bars_nest_and_end_once(monkeypatch, capsys):
    terminal = as_terminal(monkeypatch)
    outer = terminal.start("step", 2, lines_every=1)
    inner = terminal.start("evaluate", None)
    inner.update(1)
    inner.finish()
    inner.finish()
    outer.update(2)
    outer.finish()
    terminal.note("after")
    assert capsys.readouterr().err.endswith("after\n")
    # A display that has ended can begin again.
    terminal.start("step", 2).finish()


@pytest.mark.parametrize("is_terminal", [False, True])
def test_progress_passes_everything_on(monkeypatch, capsys, is_terminal):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal, raising=False)
    found = list(progress_over(iter([1, 2, 3]), "evaluate", TerminalProgress()))
    assert found == [1, 2, 3]
    assert capsys.readouterr().out == ""


def test_control_characters_never_reach_the_terminal(monkeypatch, capsys):
    progress = TerminalProgress()
    progress.note("\x1b[2J")
    task = progress.start("\x1b]0;x\x07", 1, lines_every=1)
    task.update(1, {"ap/\x1b[2J": 0.5})
    err = capsys.readouterr().err
    assert "\x1b" not in err
    assert "ap/\\x1b[2J 0.5" in err


def test_long_work_is_not_silent_without_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr("flyweight.terminal.QUIET_SECONDS", 0.05)
    progress = TerminalProgress()
    outer = progress.start("scan", 4)
    outer.update(1)
    inner = progress.start("evaluate", 9)
    for _ in range(100):
        time.sleep(0.02)
        lines = capsys.readouterr().err.splitlines()
        if lines:
            break
    assert lines[0] == "evaluate 0/9"
    inner.finish()
    for _ in range(100):
        time.sleep(0.02)
        lines = [line for line in capsys.readouterr().err.splitlines() if "scan" in line]
        if lines:
            break
    assert lines[0].startswith("scan 1/4  eta")
    outer.finish()
    time.sleep(0.1)
    capsys.readouterr()
    time.sleep(0.15)
    assert capsys.readouterr().err == ""


def test_lines_that_come_anyway_are_enough(capsys, monkeypatch):
    monkeypatch.setattr("flyweight.terminal.QUIET_SECONDS", 60.0)
    task = TerminalProgress().start("step", 3, lines_every=1)
    for done in range(1, 4):
        task.update(done)
    task.finish()
    assert len(capsys.readouterr().err.splitlines()) == 3
