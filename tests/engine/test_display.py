import sys

import pytest

from flyweight.engine.display import Bar, Lines, Silence, open_display, progress_line, progress_over


def test_the_line_is_the_promised_one():
    found = progress_line(120, 1000, 12.34, 0.001, 200.0)
    assert found == "step 120/1000  loss 12.34  lr 0.0010  eta 0:03:20"
    assert progress_line(1, 2, 0.5, 0.0, 0.9) == "step 1/2  loss 0.5  lr 0.0  eta 0:00:00"


def test_lines_come_every_so_often_and_at_the_end(capsys, monkeypatch):
    clock = iter([100.0, 100.0, 104.0, 109.0])
    monkeypatch.setattr("flyweight.engine.display.time.monotonic", lambda: next(clock))
    with Lines(start=2, steps=7, every=4) as lines:
        for done in range(3, 8):
            lines.step(done, 1.0, 0.1)
    shown = capsys.readouterr()
    assert shown.out == ""
    # Two steps in four seconds leave three steps of two seconds.
    assert shown.err.splitlines() == [
        "step 4/7  loss 1  lr 0.10  eta 0:00:06",
        "step 7/7  loss 1  lr 0.10  eta 0:00:00",
    ]


def test_a_terminal_gets_a_bar_and_others_get_nothing(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert isinstance(open_display(0, 5, 1, first=True), Bar)
    assert isinstance(open_display(0, 5, 1, first=False), Silence)
    with open_display(3, 5, 1, first=True) as bar:
        bar.step(4, 1.5, 0.001)
        bar.say("step 4/5  map [0.5]")
        assert bar.bar.tasks[0].completed == 4
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "map [0.5]" in shown.err


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_passes_everything_on(monkeypatch, capsys, terminal):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    assert list(progress_over(iter([1, 2, 3]), "evaluate", None, show=True)) == [1, 2, 3]
    assert capsys.readouterr().out == ""
