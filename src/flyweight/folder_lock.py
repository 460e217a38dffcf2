"""Lock of a folder: at most one run works in it, and a dead run does not hold it.

The lock is a file that its owner locks with `fcntl` and in which it names itself. The operating
system releases such a lock when the process ends, however it ends, and child processes do not
inherit it. A file that a killed run has left behind is therefore free for the next one. Where the
system or the file system has no such locks, the process that the file names decides.
"""

import contextlib
import errno
import json
import os
import socket
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from flyweight.errors import FileError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_HELD_ELSEWHERE = {errno.EACCES, errno.EAGAIN}
_ATTEMPTS = 100

# fcntl locks do not keep two threads of one process apart; this set does.
_held_here: set[str] = set()
_guard = threading.Lock()


class FolderLock:
    """A context manager that holds a lock file.

    Args:
        path: The lock file. Its folder is made where it does not exist, and removed at the end if
            nothing was written into it.

    Raises:
        FileError: On entry: another run holds the lock, or the folder cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None
        self._key = ""
        self._made: list[Path] = []

    def __enter__(self) -> Self:
        """Take the lock."""
        try:
            parents = self.path.parent, *self.path.parent.parents
            self._made = [folder for folder in parents if not folder.exists()]
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._key = str(self.path.parent.resolve() / self.path.name)
            with _guard:
                if self._key in _held_here:
                    raise self._refusal(_me())
                self._file = self._take()
                _held_here.add(self._key)
        except OSError as error:
            raise FileError(
                f"The folder of a run must be writable. Received: {error.strerror or error}, at "
                f"'{self.path.parent}'. Choose another folder."
            ) from error
        return self

    def __exit__(self, *error: object) -> None:
        """Release the lock and remove its file."""
        with _guard:
            _held_here.discard(self._key)
            # Removed while it is still locked: whoever opens it later makes a new file.
            self.path.unlink(missing_ok=True)
            if self._file is not None:
                os.close(self._file)
                self._file = None
        with contextlib.suppress(OSError):  # Most often a folder is not empty any more.
            for folder in self._made:
                folder.rmdir()

    def _take(self) -> int:
        for _ in range(_ATTEMPTS):
            file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                self._lock(file)
                if self._is_current(file):
                    _write_owner(file)
                    return file
            except BaseException:
                os.close(file)
                raise
            os.close(file)  # The owner before has just removed this file.
        raise self._refusal(None)

    def _lock(self, file: int) -> None:
        try:
            if fcntl is None:
                raise OSError(errno.ENOSYS, "no locks on this system")
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = _read_owner(self.path)
            if error.errno in _HELD_ELSEWHERE or _is_alive(owner):
                raise self._refusal(owner) from error

    def _is_current(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), self.path.stat())
        except FileNotFoundError:
            return False

    def _refusal(self, owner: dict[str, Any] | None) -> FileError:
        who = "another run"
        if owner is not None:
            who = f"process {owner.get('pid')} on {owner.get('host')} since {owner.get('since')}"
        return FileError(
            f"Only one run at a time can work in a folder. Received '{self.path.parent}', in which "
            f"{who} works. Wait for its end, stop it, or choose another folder."
        )


def _me() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "start": _start_of(os.getpid()),
    }


def _start_of(pid: int) -> str | None:
    """Return when a process started, in ticks since the machine did, where the system states.

    Process numbers are used again; a number and a start together are not.
    """
    try:
        # The name in parentheses may itself contain spaces and parentheses.
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return status.rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _write_owner(file: int) -> None:
    os.ftruncate(file, 0)
    os.lseek(file, 0, os.SEEK_SET)
    os.write(file, json.dumps(_me()).encode() + b"\n")


def _read_owner(path: Path) -> dict[str, Any] | None:
    try:
        owner = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError):
        return None
    return owner if isinstance(owner, dict) else None


def _is_alive(owner: dict[str, Any] | None) -> bool:
    """Say whether the process that a lock file names may still run."""
    if owner is None:
        return False
    if owner.get("host") != socket.gethostname():
        return True  # Nothing is known about another machine's processes.
    pid = owner.get("pid")
    if not isinstance(pid, int) or pid <= 0:
        return False
    with contextlib.suppress(PermissionError):  # it runs, for somebody else
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, OverflowError):
            return False
    start = _start_of(pid)
    return start is None or owner.get("start") in (None, start)
