import json
import struct

import pytest
import torch
from safetensors.torch import save_file

from flyweight.engine.tensor_document import (
    DamagedDocumentError,
    read_document,
    write_document,
)


def round_trip(tmp_path, document):
    write_document(tmp_path / "a", "kind", document)
    return read_document(tmp_path / "a", "kind")


def test_plain_values_keep_their_types(tmp_path):
    document = {
        "none": None,
        "true": True,
        "one": 1,
        "tenth": 0.1,
        "infinite": float("-inf"),
        "text": "größe",
        "list": [1, [2.0], ()],
        "tuple": (0.9, 0.999),
        "by number": {0: {"a": 1}, 1: {}},
        "empty": {},
        "looks like a tag": {"tensor": "x"},
    }
    found = round_trip(tmp_path, document)
    assert found == document
    assert [type(key) for key in found["by number"]] == [int, int]
    assert type(found["tuple"]) is tuple


def test_tensors_keep_type_shape_and_bits(tmp_path):
    whole = torch.randn(4, 6)
    tensors = {
        "float": whole,
        "shares its memory": whole,
        "part": whole[1:3, ::2],
        "channels last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "half": whole.half(),
        "bfloat16": whole.bfloat16(),
        "flag": torch.tensor([True, False]),
        "scalar": torch.tensor(7),
        "nothing": torch.zeros(0, 3),
        "trained": torch.nn.Parameter(whole),
    }
    found = round_trip(tmp_path, {"model": tensors})["model"]
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(found[name], tensor), name


def test_equal_paths_do_not_collide(tmp_path):
    document = {"a/b": torch.zeros(1), "a": {"b": torch.ones(1)}, "c": [{"d": torch.ones(2)}]}
    found = round_trip(tmp_path, document)
    assert (float(found["a/b"]), float(found["a"]["b"])) == (0.0, 1.0)
    assert torch.equal(found["c"][0]["d"], torch.ones(2))


def test_other_values_are_refused_when_they_are_written(tmp_path):
    with pytest.raises(TypeError, match="not set: a/0"):
        write_document(tmp_path / "a", "kind", {"a": [{1}]})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[1]",
        "7",
        '{"dict": [[1.5, 2]]}',
        '{"dict": [["a", {"tensor": "absent"}]]}',
        '{"dict": [["a", {"call": "os.system"}]]}',
        '{"dict": [["a", {"float": "much"}]]}',
        '{"dict": [["a", {"float": "nan", "tuple": []}]]}',
        '{"dict": 3}',
        "[" * 100_000,
    ],
)
def test_damaged_json_is_refused(tmp_path, text):
    save_file({"t": torch.zeros(1)}, tmp_path / "a", metadata={"kind": text})
    with pytest.raises(DamagedDocumentError) as caught:
        read_document(tmp_path / "a", "kind")
    assert "\n" not in str(caught.value)


def test_other_files_are_refused(tmp_path):
    save_file({"t": torch.zeros(1)}, tmp_path / "plain")
    write_document(tmp_path / "whole", "kind", {"a": torch.zeros(3)})
    (tmp_path / "cut").write_bytes((tmp_path / "whole").read_bytes()[:-1])
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}})
    content = struct.pack("<Q", len(header)) + header.encode()
    (tmp_path / "huge").write_bytes(content)
    (tmp_path / "long").write_bytes(struct.pack("<Q", 2**62))
    for name, kind in [("plain", "kind"), ("whole", "other"), ("cut", "kind"), ("huge", "kind")]:
        with pytest.raises(DamagedDocumentError):
            read_document(tmp_path / name, kind)
    with pytest.raises(DamagedDocumentError):
        read_document(tmp_path / "long", "kind")
    with pytest.raises(FileNotFoundError):
        read_document(tmp_path / "absent", "kind")


def test_json_has_a_largest_size(tmp_path, monkeypatch):
    write_document(tmp_path / "a", "kind", {"text": 100 * "x"})
    monkeypatch.setattr("flyweight.engine.tensor_document._LARGEST_TEXT", 100)
    with pytest.raises(DamagedDocumentError, match="JSON has 124 characters"):
        read_document(tmp_path / "a", "kind")
