import dataclasses

import numpy as np
import pytest

from flyweight.errors import MeasureError
from flyweight.measuring.bootstrap import median_interval
from flyweight.measuring.comparison import compare


def test_faster_and_slower(made_up):
    dense, small = made_up("a.onnx", 10.0, seed=1), made_up("b.onnx", 5.0, seed=2)
    comparison = compare(dense, small)
    assert comparison.verdict == "faster"
    assert comparison.speedup == pytest.approx(2.0, rel=0.01)
    assert comparison.interval[0] < comparison.speedup < comparison.interval[1]
    assert compare(small, dense).verdict == "slower"


def test_equal_levels_do_not_differ(made_up):
    verdicts = [
        compare(made_up("a", 10.0, seed=2 * i), made_up("b", 10.0, seed=2 * i + 1)).verdict
        for i in range(40)
    ]
    assert verdicts.count("no difference") >= 39


def test_overlapping_intervals_are_no_difference_even_if_the_ratio_is_sure(made_up):
    # Both drift together, by far more than they differ.
    drift = 1 + np.linspace(0, 1, 20)[:, None] * np.ones((20, 10))
    one, two = made_up("a", 1.0), made_up("b", 1.0)
    rows = []
    for row, level in ((one, 1.0), (two, 1.02)):
        blocks = tuple(map(tuple, (level * drift).tolist()))
        rows.append(dataclasses.replace(row, blocks_ms=blocks, interval_ms=median_interval(blocks)))
    comparison = compare(*rows)
    assert comparison.interval[1] < 1
    assert comparison.verdict == "no difference"


@pytest.mark.parametrize(("level", "verdict"), [(10.1, "no difference"), (10.4, "slower")])
def test_less_than_processes_differ_by_themselves_is_no_difference(made_up, level, verdict):
    noise = {"noise": 1e-4}
    comparison = compare(made_up("a", 10.0, **noise), made_up("b", level, seed=1, **noise))
    assert not comparison.interval[0] <= 1 <= comparison.interval[1]
    assert comparison.verdict == verdict


def test_a_noisy_machine_resolves_less(made_up):
    quiet = compare(made_up("a", 10.0), made_up("a2", 10.8, seed=1))
    noisy = compare(made_up("a", 10.0), made_up("b.onnx", 10.8, seed=1))
    assert (quiet.resolution, quiet.verdict) == (0.02, "slower")
    assert (noisy.resolution, noisy.verdict) == (0.10, "no difference")


def test_separate_measurements_and_thread_counts_cannot_be_compared(made_up):
    with pytest.raises(MeasureError, match="must be measured together"):
        compare(made_up("a", 1.0), made_up("b", 1.0, session="other"))
    with pytest.raises(MeasureError, match="same number of threads"):
        compare(made_up("a", 1.0), made_up("b", 1.0, threads=2))


def waiting(row, processor_ms):
    """Return a row whose process had to wait for its core, with its processor time."""
    generator = np.random.default_rng(0)
    blocks = tuple(processor_ms * (1 + 0.01 * generator.standard_normal(20)))
    notes = ("NOISY MACHINE: the process often had to wait for its core",)
    return dataclasses.replace(row, notes=notes, cpu_ms=processor_ms, blocks_cpu_ms=blocks)


def test_processor_time_is_compared_where_a_process_had_to_wait(made_up):
    # As was seen: 2.3 ms took a whole slice of another process in most runs, 0.8 ms did not.
    dense, small = waiting(made_up("a", 10.2), 2.3), made_up("b", 0.78, seed=1)
    small = dataclasses.replace(waiting(small, 0.83), notes=())
    for pair, speedup in (((dense, small), 2.3 / 0.83), ((small, dense), 0.83 / 2.3)):
        comparison = compare(*pair)
        assert comparison.time == "processor time"
        assert comparison.speedup == pytest.approx(speedup)
        assert comparison.interval[0] < speedup * 1.01
        assert comparison.interval[1] > speedup * 0.99
        assert comparison.verdict == ("faster" if speedup > 1 else "slower")
    assert compare(waiting(made_up("a", 10.2), 2.3), waiting(made_up("b", 5.0), 2.3)).verdict == (
        "no difference"
    )


def test_several_threads_that_had_to_wait_are_not_compared(made_up):
    dense = waiting(made_up("a", 8.0, threads=2), 2.5)
    comparison = compare(dense, made_up("b", 1.1, threads=2, seed=1))
    assert (comparison.verdict, comparison.time) == ("not comparable", "wall time")


def test_records_without_processor_time_by_block_are_not_compared_where_a_process_waited(made_up):
    dense = dataclasses.replace(waiting(made_up("a", 10.2), 2.3), blocks_cpu_ms=())
    comparison = compare(dense, waiting(made_up("b", 0.78, seed=1), 0.83))
    assert (comparison.verdict, comparison.time) == ("not comparable", "wall time")
