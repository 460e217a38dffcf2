from dataclasses import replace

import pytest
from tests.measuring.conftest import invent

from flyweight.pipeline.report_latencies import latency_quantities
from flyweight.report.change import compare

WAITED = ("NOISY MACHINE: the process often had to wait for its core",)


def rows_of(name, wall_ms, processor_ms, notes=()):
    blocks = tuple(processor_ms * (1 + 0.001 * place) for place in range(-10, 11))
    return [
        replace(
            invent(name, wall_ms, threads=threads),
            cpu_ms=processor_ms,
            blocks_cpu_ms=blocks,
            notes=notes,
        )
        for threads in (1, 2)
    ]


def test_wall_times_of_a_quiet_machine():
    dense = rows_of("a", 10.0, 10.0)
    found = latency_quantities(dense, dense, "8 x 8")
    assert list(found) == ["latency_1", "latency_2"]
    one = found["latency_1"]
    assert (one.value, one.low, one.high) == (dense[0].median_ms, *dense[0].interval_ms)
    assert one.method.startswith("median of single images of 8 x 8")


def test_a_process_that_had_to_wait_changes_the_latencies_of_all_networks():
    dense, small = rows_of("a", 10.2, 2.3, WAITED), rows_of("c", 0.78, 0.83)
    before, after = (latency_quantities(rows, [*dense, *small], "8 x 8") for rows in (dense, small))
    assert list(before) == list(after) == ["latency_1"]
    assert before["latency_1"].method.startswith("processor time of single images of 8 x 8")
    change = compare(before["latency_1"], after["latency_1"])
    assert change.amount == pytest.approx(2.3 / 0.83)
    assert change.low < change.amount < change.high


def test_measurements_without_processor_time_by_block():
    rows = [replace(row, blocks_cpu_ms=()) for row in rows_of("a", 10.2, 2.3, WAITED)]
    assert latency_quantities(rows, rows, "8 x 8") == {}
