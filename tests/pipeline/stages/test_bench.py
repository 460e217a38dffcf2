import pytest
from tests.measuring.conftest import invent

from flyweight.errors import FileError
from flyweight.pipeline.results import Exported
from flyweight.pipeline.stage import Inputs
from flyweight.pipeline.stages import bench as stage
from flyweight.workspace import Workspace


@pytest.fixture
def measured(monkeypatch, config_of, notes, tmp_path):
    """Run the stage on invented measurements; return its result."""

    def measure(files, *, threads, runtime, config, progress):
        assert (threads, runtime, config.seconds) == ((1,), "onnxruntime", 0.1)
        return tuple(
            invent(path.name, level) for path, level in zip(files, (2.0, 1.0), strict=True)
        )

    monkeypatch.setattr(stage, "measure", measure)
    files = {
        name: tmp_path / f"{letter}.onnx" for name, letter in (("dense", "a"), ("pruned", "b"))
    }
    inputs = Inputs("run", results={"export": Exported(files)}, progress=notes)
    settings = stage.BENCH.view(config_of())
    return inputs, settings, stage.BENCH.run(inputs, settings, Workspace(tmp_path))


def test_measurements_are_kept_and_read_again(measured, notes, tmp_path):
    inputs, settings, found = measured
    assert stage.BENCH.read(inputs, settings, Workspace(tmp_path)) == found
    assert [row.name for row in found.rows] == ["a.onnx", "b.onnx"]
    assert notes.said == ["note: b.onnx, 1 thread: NOISY MACHINE: made up"]
    assert set(stage.BENCH.digests(found)) == {"measurements"}
    assert "machine" in stage.BENCH.surroundings(tmp_path)


def test_damaged_measurements_are_named(measured, tmp_path):
    inputs, settings, _ = measured
    (tmp_path / "measurements.json").write_text("[{}]")
    with pytest.raises(FileError, match=r"Received '.*measurements\.json'.*--fresh"):
        stage.BENCH.read(inputs, settings, Workspace(tmp_path))
