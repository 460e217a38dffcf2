import errno
import os
import stat
from pathlib import Path

import pytest

from flyweight.errors import FileError
from flyweight.files import replacing, write_text


def test_writes_and_replaces(tmp_path):
    target = tmp_path / "made" / "on" / "the" / "way" / "plan.json"
    write_text(target, "ä")
    write_text(target, "β")
    assert target.read_text(encoding="utf-8") == "β"
    assert [path.name for path in target.parent.iterdir()] == ["plan.json"]


def test_a_block_that_raises_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "plan.json"
    write_text(target, "old")

    def write_half():
        with replacing(target) as draft:
            draft.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_the_draft_keeps_the_ending_and_its_place(tmp_path):
    with replacing(tmp_path / "a.onnx") as draft:
        assert (draft.suffix, draft.parent) == (".onnx", tmp_path)


def test_the_file_has_ordinary_rights(tmp_path):
    old = os.umask(0o027)
    try:
        write_text(tmp_path / "a", "")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


@pytest.mark.parametrize("step", ["fsync", "write", "rename"])
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, monkeypatch, step):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fail(*_, **__):
        raise full

    target = tmp_path / "a.txt"
    if step == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    elif step == "write":
        monkeypatch.setattr(Path, "write_text", fail)
    else:
        monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(FileError, match=r"a\.txt' must be writable. Received: No space left on"):
        write_text(target, "x")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_way(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(FileError, match="must be writable"):
        write_text(tmp_path / "a", "x")
    (tmp_path / "b").write_text("")
    with pytest.raises(FileError, match="must be writable"):
        write_text(tmp_path / "b" / "c", "x")
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}
