from flyweight.report import quantities


def test_latency_says_threads_and_runtime() -> None:
    timing = quantities.latency(
        2.0, low_ms=1.5, high_ms=2.5, threads=2, runtime="OpenVINO", method="median"
    )
    assert timing.name == "Latency, 2 threads"
    assert timing.environment == {"runtime": "OpenVINO", "threads": "2"}
    assert (timing.unit, timing.low, timing.high) == ("ms", 1.5, 2.5)


def test_units() -> None:
    made = (
        quantities.metric("mAP", 0.5, method="m"),
        quantities.macs(1, method="m"),
        quantities.parameters(1, method="m"),
        quantities.file_size(1, method="m"),
        quantities.peak_memory(1, method="m", environment={"runtime": "r"}),
    )
    assert [one.unit for one in made] == ["fraction", "MACs", "parameters", "bytes", "bytes"]
    assert made[-1].environment == {"runtime": "r"}
