"""Timing of single inferences: one loop for every runtime."""

import gc
import time
from collections.abc import Callable


def time_runs(call: Callable[[], object], runs: int) -> tuple[list[float], float]:
    """Time a call after one untimed call; garbage is not collected meanwhile.

    Args:
        call: What `OpenModel.inference` returns.
        runs: Timed calls, at least 1.

    Returns:
        The wall time of each call, and the processor time of one call summed over threads (mean),
        both in milliseconds.
    """
    clock = time.perf_counter_ns
    call()  # the caches may hold another process's model
    times = [0] * runs
    gc.disable()
    cpu = time.process_time_ns()
    for index in range(runs):
        started = clock()
        call()
        times[index] = clock() - started
    cpu = time.process_time_ns() - cpu
    gc.enable()
    return [ns / 1e6 for ns in times], cpu / 1e6 / runs
