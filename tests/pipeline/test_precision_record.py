from dataclasses import replace

import pytest
from tests.measuring.conftest import made_up  # noqa: F401 - a fixture

from flyweight.errors import FileError
from flyweight.pipeline.precision_record import (
    PrecisionLatency,
    PrecisionRecord,
    latency_of,
    read_record,
    record_path,
)


def test_a_quiet_machine_is_judged_by_wall_time(made_up):  # noqa: F811
    dense, small = made_up("dense", 10.0, seed=1), made_up("small", 5.0, seed=2)
    found = latency_of(dense, small, some_float=True, some_integer=True)
    assert found.ratio == pytest.approx(2.0, rel=0.01)
    assert found.interval[0] < 2 < found.interval[1]
    assert (found.precision, found.inference, found.note) == ("mixed", "float32", "")
    assert latency_of(dense, small, some_float=False, some_integer=True).precision == "int8"
    itself = latency_of(dense, dense, some_float=True, some_integer=False)
    assert itself.is_reference
    assert (itself.precision, itself.ratio, itself.interval) == ("float", 1.0, (1.0, 1.0))


def test_a_noisy_machine_is_judged_by_processor_time(made_up):  # noqa: F811
    dense, small = (
        replace(made_up("b.onnx", 40.0), cpu_ms=cpu, blocks_cpu_ms=(cpu * 0.99, cpu, cpu) * 7)
        for cpu in (9.0, 6.0)
    )
    found = latency_of(dense, small, some_float=True, some_integer=True)
    assert (found.float_ms, found.chosen_ms, found.ratio) == (9.0, 6.0, 1.5)
    assert found.note == "processor time, because the machine is noisy"
    assert found.resolution == 0.1


def test_faster_means_by_more_than_the_error(made_up):  # noqa: F811
    dense = made_up("dense", 10.0, seed=1)
    rows = {
        level: latency_of(
            dense, made_up("small", level, seed=2), some_float=True, some_integer=True
        )
        for level in (9.9, 8.0, 7.9, 6.0)
    }
    itself = latency_of(dense, dense, some_float=True, some_integer=False)
    assert not rows[9.9].faster_than(itself)
    assert rows[8.0].faster_than(itself)
    assert not rows[7.9].faster_than(rows[8.0])
    assert rows[6.0].faster_than(rows[8.0])


def test_the_precision_of_float_operations_makes_another_file_of_it(made_up):  # noqa: F811
    dense = made_up("dense", 10.0, seed=1)
    short = replace(made_up("dense", 6.0, seed=2), precision="bfloat16")
    found = latency_of(dense, short, some_float=True, some_integer=False)
    assert not found.is_reference
    assert found.inference == "bfloat16"


def record():
    latency = PrecisionLatency(
        "openvino", "mixed", "bfloat16", 2.0, 1.0, 2.0, (1.9, 2.1), 0.02, "a processor"
    )
    return PrecisionRecord({"float": {"head": "no faster"}, "integer": ["stem"]}, latency)


def test_a_record_is_read_as_it_was_written(tmp_path):
    path = record_path(tmp_path / "small.safetensors")
    assert path == tmp_path / "small.precision.json"
    record().save(path)
    assert read_record(path) == record()
    assert read_record(path).floats == {"head": "no faster"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"format": 1', '"format": 2'),
        ('"interval"', '"interior"'),
        ('"plan"', '"plans"'),
        ('"float": {', '"floats": {'),
        ('"cpu"', '"gpu"'),
    ],
)
def test_damage_is_named(tmp_path, old, new):
    path = tmp_path / "small.precision.json"
    record().save(path)
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(FileError, match="A record of precisions must be what flyweight wrote"):
        read_record(path)
    with pytest.raises(FileError, match="none"):
        read_record(tmp_path / "none.json")
