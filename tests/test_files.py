import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from flyweight.errors import FileError
from flyweight.files import remove_abandoned_drafts, replacing, write_text


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


def test_the_draft_has_an_ending_of_no_format_and_lies_beside_its_target(tmp_path):
    with replacing(tmp_path / "a.onnx") as draft:
        assert (draft.suffix, draft.parent) == (".draft", tmp_path)
        assert draft.name.startswith(".a.onnx.")


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


def test_a_file_keeps_its_permissions(tmp_path):
    private = tmp_path / "private.json"
    private.write_text("old")
    private.chmod(0o600)
    write_text(private, "new")
    assert (private.read_text(), stat.S_IMODE(private.stat().st_mode)) == ("new", 0o600)


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "real").write_text("old")
    (tmp_path / "middle").symlink_to("far/real")
    (tmp_path / "link").symlink_to(tmp_path / "middle")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "middle").is_symlink()
    assert (tmp_path / "far" / "real").read_text() == "new"
    (tmp_path / "to nothing yet").symlink_to("far/other")
    write_text(tmp_path / "to nothing yet", "made")
    assert (tmp_path / "far" / "other").read_text() == "made"


def test_links_in_a_circle(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(FileError, match="must be writable"):
        write_text(tmp_path / "a", "x")


def test_a_name_may_be_as_long_as_the_system_allows_and_have_signs_of_patterns(tmp_path):
    for name in ("n" * 250 + ".json", "*[x]?.json"):
        write_text(tmp_path / name, "x")
        write_text(tmp_path / name, "y")
        assert (tmp_path / name).read_text() == "y"


KILLED = """
import os, signal, sys
from flyweight.files import replacing
with replacing(sys.argv[1]) as draft:
    draft.write_text("half")
    if sys.argv[2] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    print("ready", flush=True)
    sys.stdin.read()
"""


def write_elsewhere(target, way):
    return subprocess.Popen(
        [sys.executable, "-c", KILLED, str(target), way],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path):
    one, other = tmp_path / "a.png", tmp_path / "inner" / "b.png"
    for target in (one, other):
        with write_elsewhere(target, "die") as writer:
            writer.communicate()
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in left} == {".draft"}
    assert len(left) == 2
    write_text(one, "whole")  # The same file is written again.
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["a.png"]
    remove_abandoned_drafts(tmp_path)
    assert list(other.parent.iterdir()) == []


def test_what_another_process_is_writing_stays(tmp_path):
    target = tmp_path / "a.png"
    with write_elsewhere(target, "live") as writer:
        assert writer.stdout.readline() == "ready\n"
        remove_abandoned_drafts(tmp_path)
        write_text(target, "ours")
        writer.communicate("")
    assert (writer.returncode, target.read_text()) == (0, "half")
    assert list(tmp_path.iterdir()) == [target]


def test_files_of_users_are_no_drafts(tmp_path):
    for name in ("notes.draft", ".hidden", ".a.json"):
        (tmp_path / name).write_text("mine")
    remove_abandoned_drafts(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"notes.draft", ".hidden", ".a.json"}
