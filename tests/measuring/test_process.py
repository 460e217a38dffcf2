import os
import signal
import threading
import time

import pytest

from flyweight.errors import MeasureError
from flyweight.measuring.process import RequestError, WorkerProcess


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_child_is_reaped_when_the_block_ends():
    with WorkerProcess("a.onnx", timeout_seconds=60) as child:
        child.ask("start", cores=[])
        assert alive(child.pid)
    assert not alive(child.pid)


def test_the_child_is_reaped_when_the_user_interrupts():
    child = WorkerProcess("a.onnx", timeout_seconds=60)

    def interrupted():
        with child:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not alive(child.pid)


def test_a_refusal_leaves_the_child_alive(tmp_path):
    with WorkerProcess("a.onnx", timeout_seconds=60) as child:
        with pytest.raises(RequestError) as refusal:
            child.ask("load", path=str(tmp_path / "no"), threads=1, spinning=False)
        assert refusal.value.kind == "NoSuchFile"
        assert child.ask("memory")["peak"] > 0


def test_a_child_that_dies_is_an_error_that_names_the_file():
    with WorkerProcess("a.onnx", timeout_seconds=60) as child:
        child.ask("start", cores=[])
        os.kill(child.pid, signal.SIGKILL)
        with pytest.raises(
            MeasureError, match=r"'a.onnx' must survive 'memory'.*signal 9"
        ) as error:
            child.ask("memory")
    assert "\n" not in str(error.value)


def test_a_silent_child_is_given_up():
    with WorkerProcess("a.onnx", timeout_seconds=1.5) as child:
        child.ask("start", cores=[])
        os.kill(child.pid, signal.SIGSTOP)
        started = time.monotonic()
        with pytest.raises(MeasureError, match=r"must answer within 1.5 s.*'memory'"):
            child.ask("memory")
        assert time.monotonic() - started < 20


def test_no_timer_outlives_a_request():
    before = threading.active_count()
    with WorkerProcess("a.onnx", timeout_seconds=60) as child:
        child.ask("start", cores=[])
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join(5)
    assert threading.active_count() <= before
