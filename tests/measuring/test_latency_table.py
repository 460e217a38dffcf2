import pytest
import torch
from tests.measuring.machine import layer
from torch import nn

from flyweight.errors import FileError, MeasureError
from flyweight.graph import trace
from flyweight.measuring.channel_step import FoundStep
from flyweight.measuring.latency_table import LayerTable, network_key, read_table, require_runtime

MADE_ON = {"runtime": "onnxruntime 1", "cpu": "some", "threads": "2"}


def table():
    empty = LayerTable(MADE_ON, "2026-11-22T10:00:00+00:00", FoundStep(16, {8: 0.3, 16: -0.02}))
    return empty.with_times(layer().geometry, {(16, 16): 0.25, (64, 16): 0.5})


def test_a_file_gives_the_table_again(tmp_path):
    graph = trace(nn.Sequential(nn.Conv2d(3, 4, 1)).eval(), (torch.rand(1, 3, 4, 4),))
    wanted = table().with_whole(graph, 7.5)
    wanted.save(tmp_path / "a.json")
    assert read_table(tmp_path / "a.json") == wanted
    assert wanted.whole == {network_key(graph): 7.5}
    assert (wanted.threads, wanted.step) == (2, 16)


def test_what_is_missing_is_told():
    known = table()
    missing = known.missing(layer())
    assert len(missing) == 4 * 4 - 2
    assert (16, 16) not in missing
    full = known.with_times(layer().geometry, dict.fromkeys(missing, 1.0))
    assert full.missing(layer()) == []
    assert full.layers.keys() == known.layers.keys()


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileError, match=r"must be readable.*flyweight bench --layers"):
        read_table(tmp_path / "none.json")
    for text in ("{}", "[", '{"format": 2}', table().to_json().replace("0.5]", '"x"]')):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(MeasureError, match="must be what flyweight wrote"):
            read_table(tmp_path / "bad.json")


def test_a_table_without_a_step():
    with pytest.raises(MeasureError, match="must know the fast channel step"):
        _ = LayerTable(MADE_ON, "").step


def test_a_table_of_another_runtime_is_refused():
    assert table().runtime == "onnxruntime"
    require_runtime(table(), "onnxruntime")
    with pytest.raises(MeasureError, match=r"of onnxruntime 1 for a budget on openvino") as error:
        require_runtime(table(), "openvino")
    assert "\n" not in str(error.value)


def test_a_network_is_another_one_with_keyword_inputs_of_another_shape():
    class Masked(nn.Conv2d):
        def forward(self, x, mask=1):
            return super().forward(x) * mask

    model, x = Masked(3, 4, 1).eval(), torch.rand(1, 3, 4, 4)
    masks = [torch.rand(1, 1, 4, 4), torch.rand(1, 1, 1, 1)]
    keys = [network_key(trace(model, (x,), {"mask": mask})) for mask in masks]
    assert len({*keys, network_key(trace(model, (x,)))}) == 3
