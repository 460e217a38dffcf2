import pytest
from tests.measuring.machine import blocked

from flyweight import pipeline
from flyweight.errors import FileError
from flyweight.folder_lock import FolderLock
from flyweight.measuring.latency_table import read_table
from flyweight.pipeline.latency_cuts import NetworkTimer
from flyweight.pipeline.stages.layers import LAYERS


@pytest.fixture
def machine(monkeypatch):
    """Replace the runtime by a machine with blocks of 8 channels."""
    made = []

    def timer(threads, runtime):
        made.append((threads, runtime))
        return blocked(8)

    monkeypatch.setattr("flyweight.measuring.table_builder.RuntimeTimer", timer)
    monkeypatch.setattr(NetworkTimer, "dense_ms", lambda self: 50.0)
    return made


def test_a_table_from_python(config_of, machine, notes, tmp_path):
    path = tmp_path / "t.json"
    found = pipeline.time_layers(config_of(), path, pipeline.LayersOptions(2), progress=notes)
    assert found.table == read_table(path)
    assert (found.table.step, found.table.threads) == (8, 2)
    assert machine == [(2, "onnxruntime")]
    assert notes.said == [f"measuring layers; an interrupted run is resumed from '{path}'"]
    assert sorted(tmp_path.iterdir()) == [path]


def test_a_table_of_a_checkpoint_alone(dense, machine, notes, tmp_path):
    options = pipeline.LayersOptions(2, seconds=0.1)
    path = tmp_path / "t.json"
    found = pipeline.time_layers_of_checkpoint(dense, path, options, progress=notes)
    assert found.table == read_table(path)
    assert notes.said[0] == f"weights: {dense}"


def test_two_runs_with_one_table_are_refused(config_of, machine, tmp_path):
    with (
        FolderLock(tmp_path / ".t.json.lock"),
        pytest.raises(FileError, match="Only one run at a time"),
    ):
        pipeline.time_layers(config_of(), tmp_path / "t.json")


def test_a_chain_times_layers_where_the_cut_asks_for_that(config_of):
    cut = ("prune.params=[]", "prune.ratios=[]", "prune.scan=this_run", "prune.budget=latency_ms=3")
    assert not LAYERS.wanted(config_of(*cut, "prune.latency_table=t.json"))
    assert LAYERS.wanted(config_of(*cut, "prune.latency_table=this_run"))
    assert not LAYERS.wanted(config_of())
