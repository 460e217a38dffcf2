import json
from dataclasses import replace

import pytest

from flyweight.measuring import measurement_text as table


@pytest.fixture
def rows(made_up):
    levels = [("a.onnx", 10.0), ("b.onnx", 5.0), ("c.onnx", 20.0)]
    return [
        made_up(name, level / threads, seed=10 * threads + seed, threads=threads)
        for seed, (name, level) in enumerate(levels)
        for threads in (1, 2)
    ]


def test_the_text_has_a_line_per_row_then_verdicts_notes_and_environment(rows):
    parts = table.to_text(rows).split("\n\n")
    assert len(parts) == 4
    lines = parts[0].splitlines()
    assert len({line.index("file MB") for line in lines[:1]}) == 1
    assert [line.split()[:2] for line in lines[1:]] == [
        [name, threads] for threads in "12" for name in ("a.onnx", "b.onnx", "c.onnx")
    ]
    assert "1.50" in lines[1]
    assert "?" in lines[1]
    assert "b.onnx, 2 threads: 2.00x as fast as a.onnx (95% interval" in parts[1]
    assert "c.onnx, 2 threads: slower than a.onnx: 0.50x as fast" in parts[1]
    assert parts[2].splitlines()[0] == "! b.onnx, 1 thread: NOISY MACHINE: made up"
    assert parts[3].startswith("cpu, 2 cores; load 0.1 before, 0.2 after; onnxruntime 1;")


def test_no_difference_is_said_in_words(made_up):
    rows = [made_up("a.onnx", 10.0, seed=1), made_up("b.onnx", 10.0, seed=2)]
    assert "b.onnx, 1 thread: no difference from a.onnx" in table.to_text(rows)


def test_a_process_that_had_to_wait_is_named(made_up):
    notes = ("NOISY MACHINE: the process often had to wait for its core",)
    cpu = {"blocks_cpu_ms": (2.0,) * 20, "cpu_ms": 2.0, "notes": notes}
    one = replace(made_up("a.onnx", 10.0), **cpu)
    other = replace(made_up("c.onnx", 10.0, seed=1), **{**cpu, "blocks_cpu_ms": (1.0,) * 20})
    other = replace(other, cpu_ms=1.0)
    text = table.to_text([one, other])
    assert "2.00x as fast as a.onnx (95% interval of processor time 2.000 to 2.000)" in text
    rows = [replace(row, threads=2) for row in (one, other)]
    assert "c.onnx, 2 threads: cannot be compared with a.onnx, because a process had" in (
        table.to_text(rows)
    )


def test_the_records_survive_json(rows):
    records = table.to_records(rows)
    again = json.loads(json.dumps(records))
    assert again == records
    assert "blocks_ms" not in again["measurements"][0]
    assert again["measurements"][0]["environment"]["cpu"] == "cpu"
    assert {item["verdict"] for item in again["comparisons"]} == {"faster", "slower"}


def test_a_single_file_has_nothing_to_compare_with(rows):
    assert table.comparisons(rows[:2]) == ()
    assert table.comparisons([]) == ()
    assert table.to_text([]) == ""
