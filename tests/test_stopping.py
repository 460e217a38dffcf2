import os
import signal
import threading

import pytest

from flyweight.stopping import Stopping, signals_as_ctrl_c

LIKE_CTRL_C = (signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def handlers_stay():
    """Each test starts as a program does; libraries that other tests used may have set handlers."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *LIKE_CTRL_C)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in LIKE_CTRL_C:
        signal.signal(number, signal.SIG_DFL)
    yield
    after = [signal.getsignal(number) for number in LIKE_CTRL_C]
    for number, handler in before.items():
        signal.signal(number, handler)
    assert after == [signal.SIG_DFL] * len(LIKE_CTRL_C)


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", LIKE_CTRL_C)
def test_other_signals_act_as_ctrl_c(number):
    with pytest.raises(KeyboardInterrupt), signals_as_ctrl_c():
        send(number)


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals_as_ctrl_c():
            send(signal.SIGHUP)  # as under nohup
            with Stopping() as stopping:
                send(signal.SIGHUP)
            assert not stopping.asked
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, *LIKE_CTRL_C])
def test_work_ends_its_step_first(number, capfd):
    done = []

    def work():
        with signals_as_ctrl_c(), Stopping() as stopping:
            send(number)
            assert stopping.asked
            done.append("the step")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["the step"]
    assert "stopping after this step" in capfd.readouterr().err


def test_the_second_signal_stops_at_once():
    done = []

    def work():
        with signals_as_ctrl_c(), Stopping():
            send(signal.SIGINT)
            send(signal.SIGTERM)
            done.append("more")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == []


@pytest.mark.parametrize(
    ("signalled", "raised", "seen"),
    [
        (True, KeyError, KeyError),
        (False, RuntimeError, RuntimeError),
        # A process that loads images has ended by the same signal.
        (True, RuntimeError, KeyboardInterrupt),
    ],
)
def test_errors_of_the_work(signalled, raised, seen):
    def work():
        with Stopping():
            if signalled:
                send(signal.SIGINT)
            raise raised

    with pytest.raises(seen):
        work()


def test_a_handler_of_the_program_is_left_alone():
    taken = []
    before = signal.signal(signal.SIGTERM, lambda *_: taken.append("ours"))
    try:
        with signals_as_ctrl_c(), Stopping() as stopping:
            send(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (taken, stopping.asked) == (["ours"], False)


def test_in_another_thread_nothing_is_changed():
    found = []

    def work():
        with signals_as_ctrl_c(), Stopping():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGTERM)]
