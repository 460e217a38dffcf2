import errno
import json
import os
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from flyweight import folder_lock
from flyweight.errors import FileError
from flyweight.folder_lock import FolderLock

HOLD = """
import sys, time
from pathlib import Path
from flyweight.folder_lock import FolderLock
with FolderLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run" / ".lock")],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_lock_leaves_nothing_behind(tmp_path):
    path = tmp_path / "run" / ".lock"
    with FolderLock(path):
        owner = json.loads(path.read_text())
        assert owner["pid"] == os.getpid()
        assert owner.keys() == {"pid", "host", "since", "start"}
    assert list(tmp_path.iterdir()) == []
    with FolderLock(path):
        (path.parent / "result").touch()
    assert list(path.parent.iterdir()) == [path.parent / "result"]
    with FolderLock(path):
        pass


def test_another_process_is_refused_in_one_line(tmp_path, holder):
    said = rf"Received '.*run', in which process {holder.pid} on .* since 20.* works\. Wait"
    with pytest.raises(FileError, match=said) as refusal, FolderLock(tmp_path / "run" / ".lock"):
        pass
    assert "\n" not in str(refusal.value)
    assert (tmp_path / "run" / ".lock").is_file()


def test_a_killed_process_holds_nothing(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    path = tmp_path / "run" / ".lock"
    assert json.loads(path.read_text())["pid"] == holder.pid
    with FolderLock(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_one_process_takes_a_lock_once(tmp_path):
    path, found = tmp_path / ".lock", []

    def attempt():
        try:
            with FolderLock(tmp_path / "." / ".lock"):
                pass
        except FileError as error:
            found.append(str(error))

    with FolderLock(path):
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
    assert f"process {os.getpid()}" in found[0]
    attempt()
    assert len(found) == 1


def test_an_owner_that_leaves_in_the_same_moment(tmp_path, monkeypatch):
    """The file that was opened is removed before it is locked: it is not the lock any more."""
    path, lockf, count = tmp_path / ".lock", folder_lock.fcntl.lockf, []

    def removed_first(file, how):
        count.append(how)
        if len(count) == 1:
            path.unlink()
        lockf(file, how)

    monkeypatch.setattr(folder_lock.fcntl, "lockf", removed_first)
    with FolderLock(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert len(count) == 2


def _owner(**changes):
    return json.dumps({**folder_lock._me(), **changes})


@pytest.mark.parametrize("system", ["windows", "file system"])
@pytest.mark.parametrize(
    ("text", "free"),
    [
        (_owner(), False),
        (_owner(start=None), False),
        (_owner(start="1"), True),  # the number was given to another process
        (_owner(pid=2**22 + 1), True),
        (_owner(pid=10**30), True),
        (_owner(pid="x"), True),
        (_owner(host="elsewhere"), False),
        ("{", True),
        ("[]", True),
    ],
    ids=[  # every process of a test run must give the tests the same names
        *("this process", "unknown start", "another process of its number", "no such process"),
        *("impossible number", "no number", "another machine", "no JSON", "no mapping"),
    ],
)
def test_without_locks_of_the_system_the_named_process_decides(
    tmp_path, monkeypatch, system, text, free
):
    def unsupported(file, how):
        raise OSError(errno.ENOTSUP, "no locks")

    module = SimpleNamespace(lockf=unsupported, LOCK_EX=1, LOCK_NB=2)
    monkeypatch.setattr(folder_lock, "fcntl", None if system == "windows" else module)
    path = tmp_path / ".lock"
    path.write_text(text)
    if free:
        with FolderLock(path):
            assert json.loads(path.read_text())["pid"] == os.getpid()
        return
    with pytest.raises(FileError, match="Only one run at a time"), FolderLock(path):
        pass


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    lock = FolderLock(tmp_path / "file" / "run" / ".lock")
    with pytest.raises(FileError, match="must be writable"), lock:
        pass
