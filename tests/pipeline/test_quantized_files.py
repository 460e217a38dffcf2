import pytest
from tests.pipeline.test_folder_report import CONFIG

from flyweight import checkpoint
from flyweight.errors import FileError
from flyweight.origin import Parent, note_parent
from flyweight.pipeline.network_plans import build_model
from flyweight.pipeline.quantized_files import FLOAT, QuantizedFiles


@pytest.fixture
def files(tmp_path):
    return QuantizedFiles(tmp_path / "small.safetensors")


def write_all(files, text):
    for path in (*files.networks.values(), files.record, files.checkpoint):
        path.write_text(text)
    for path in files.networks.values():
        path.with_suffix(".yaml").write_text(text)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


ALL = [
    *("small.json", "small.onnx", "small.safetensors", "small.yaml"),
    *("small_float.onnx", "small_float.yaml"),
]


def test_all_files_appear_at_the_end(tmp_path, files):
    with files.written() as drafts:
        write_all(drafts, "new")
        assert [name for name in names(tmp_path) if not name.startswith(".")] == []
    assert names(tmp_path) == ALL


def test_a_block_that_raises_leaves_what_was_there(tmp_path, files):
    write_all(files, "old")

    def refused():
        with files.written() as drafts:
            write_all(drafts, "new")
            raise ValueError("refused")

    with pytest.raises(ValueError, match="refused"):
        refused()
    assert names(tmp_path) == ALL
    assert {path.read_text() for path in tmp_path.iterdir()} == {"old"}


def test_what_a_killed_process_left_is_removed(tmp_path, files):
    (tmp_path / ".small.draft").mkdir()
    (tmp_path / ".small.draft" / "small.onnx").write_text("half")
    with files.written() as drafts:
        assert not drafts.networks["int8"].exists()
        write_all(drafts, "new")
    assert names(tmp_path) == ALL


def test_only_the_files_of_the_same_network_may_be_replaced(tmp_path, files):
    files.require_own(("digest",), tmp_path / "dense.safetensors")
    model = build_model(CONFIG)
    note_parent(model, Parent(FLOAT, "0123456789abcdef"))
    checkpoint.save(model, files.checkpoint)
    files.require_own(("other", "0123456789abcdef"), tmp_path / "dense.safetensors")
    with pytest.raises(FileError, match=r"made of other weights \(digest 0123456789ab\)"):
        files.require_own(("other",), tmp_path / "dense.safetensors")


@pytest.mark.parametrize("name", ["small.safetensors", "small.onnx", "small.json"])
def test_files_of_unknown_origin_are_not_replaced(tmp_path, files, name):
    (tmp_path / name).write_text("a user's own")
    with pytest.raises(FileError, match=r"unknown origin\. Give another --output, or add --over"):
        files.require_own(("digest",), tmp_path / "dense.safetensors")
