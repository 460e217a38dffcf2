import gc
import time

import pytest

from flyweight.runtimes.timing import time_runs


def test_every_call_but_the_first_is_timed():
    calls = []

    def call():
        calls.append(gc.isenabled())
        time.sleep(0.002)

    wall_ms, cpu_ms = time_runs(call, 5)
    assert len(calls) == 6
    assert len(wall_ms) == 5
    assert min(wall_ms) >= 2.0
    assert 0 <= cpu_ms < 2.0  # waiting takes no processor time
    assert not any(calls[1:])
    assert gc.isenabled()


def test_the_clock_is_read_twice_for_every_call(monkeypatch):
    readings = iter(range(0, 10**9, 10**6))
    monkeypatch.setattr(time, "perf_counter_ns", lambda: next(readings))
    wall_ms, _ = time_runs(lambda: None, 4)
    assert wall_ms == pytest.approx([1.0] * 4)
    assert next(readings) == 8 * 10**6
