import subprocess
import sys

import pytest

from flyweight.progress import SILENT, progress_of, progress_over
from flyweight.terminal import TerminalProgress


def test_every_item_is_reported_when_the_consumer_is_done_with_it(recorded_progress):
    for item in progress_over([5, 6], "count", recorded_progress):
        recorded_progress.note(str(item))
    assert recorded_progress.events == [
        ("start", "count", 2, 0),
        ("note", "5"),
        ("update", "count", 1, {}),
        ("note", "6"),
        ("update", "count", 2, {}),
        ("finish", "count"),
    ]


def test_a_length_may_be_unknown_or_given(recorded_progress):
    assert list(progress_over(iter("ab"), "one", recorded_progress)) == ["a", "b"]
    assert list(progress_over(iter("ab"), "two", recorded_progress, total=2)) == ["a", "b"]
    starts = [event for event in recorded_progress.events if event[0] == "start"]
    assert starts == [("start", "one", None, 0), ("start", "two", 2, 0)]


def test_work_that_fails_is_finished_too(recorded_progress):
    def divide():
        for item in progress_over([1, 0], "divide", recorded_progress):
            1 / item

    with pytest.raises(ZeroDivisionError):
        divide()
    assert recorded_progress.events[-1] == ("finish", "divide")


def test_true_is_the_terminal_and_false_is_nothing(recorded_progress):
    assert isinstance(progress_of(True), TerminalProgress)
    assert progress_of(True) is progress_of(True)
    assert progress_of(False) is SILENT
    assert progress_of(recorded_progress) is recorded_progress


def test_silence_writes_nothing(capsys):
    task = SILENT.start("step", 3, done=1, lines_every=1)
    task.update(2, {"loss": 1.0})
    SILENT.note("text")
    task.finish()
    shown = capsys.readouterr()
    assert shown.out + shown.err == ""


def test_the_protocol_imports_neither_torch_nor_rich():
    code = "import sys, flyweight.progress; print(sorted({'torch', 'rich'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
