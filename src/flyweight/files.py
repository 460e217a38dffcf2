"""Writing files whole or not at all.

A file is written as a *draft* beside its place and then renamed. A draft is a hidden file whose
name ends in `.draft`, so that nothing takes it for an image, a table or a model. Its writer keeps
it locked. A draft that nobody has locked was left by a process that was killed; the next process
that works there removes it.
"""

import contextlib
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flyweight.errors import FileError
from flyweight.printable import printable

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

DRAFT = ".draft"
_ATTEMPTS = 100
_NAME_LENGTH = 40  # of the final name; the system limits the length of a name
_OLD_SECONDS = 24 * 3600.0


@contextmanager
def replacing(path: str | os.PathLike[str], *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its place when the block ends well.

    A block that raises leaves neither a new nor a changed file behind, so what carries the final
    name is always whole. A file that is there keeps its permissions. A symbolic link stays, and the
    file that it names is replaced.

    Args:
        path: The final name. The temporary one has another suffix, so a writer must be given
            the format.
        durable: Wait until the disk has the content, so that it outlives a loss of power. One file
            among thousands that can be made again need not. What an earlier process left of the
            same file is removed, too.

    Raises:
        FileError: The folder cannot be made, or the disk is full or read-only.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "plan.json"
        >>> with replacing(target) as draft:
        ...     _ = draft.write_text("{}")
        >>> target.read_text()
        '{}'
    """
    given = Path(path)
    draft: Path | None = None
    lock: int | None = None
    try:
        target = _behind_links(given)
        target.parent.mkdir(parents=True, exist_ok=True)
        if durable:
            _remove_abandoned(target.parent.glob(f"{_escaped(_prefix(target))}*{DRAFT}"))
        lock, draft = _new_draft(target)
        yield draft
        if durable:
            _flush_to_disk(draft)
        draft.chmod(_mode_of(target))
        draft.replace(target)
    except OSError as error:
        raise FileError(
            f"'{given}' must be writable. Received: {error.strerror or error}. "
            "Free space there or choose another path; nothing was left half-written."
        ) from error
    finally:
        if draft is not None:
            draft.unlink(missing_ok=True)
        if lock is not None:
            os.close(lock)


def write_text(path: str | os.PathLike[str], text: str, *, durable: bool = True) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all; `durable` as in `replacing`."""
    with replacing(path, durable=durable) as draft:
        try:
            draft.write_text(text, encoding="utf-8")
        except UnicodeEncodeError as error:
            found = printable(text[max(0, error.start - 20) : error.end + 20])
            raise FileError(
                f"The text for '{path}' must be writable as UTF-8. Received a name with bytes or "
                f"halves of characters that are not: '{found}'. Rename what has it."
            ) from error


def remove_abandoned_drafts(folder: Path) -> None:
    """Remove the drafts below a folder whose writers were killed; those being written stay."""
    _remove_abandoned(folder.rglob(f".*{DRAFT}"))


def _remove_abandoned(drafts: Iterator[Path]) -> None:
    with contextlib.suppress(OSError):  # A folder can vanish while it is read.
        for draft in list(drafts):
            with contextlib.suppress(OSError):
                if draft.is_symlink() or (draft.is_file() and _is_abandoned(draft)):
                    draft.unlink()


def _new_draft(target: Path) -> tuple[int | None, Path]:
    """Return a new file, empty and locked; None where the system has no locks."""
    for _ in range(_ATTEMPTS):
        handle, name = tempfile.mkstemp(prefix=_prefix(target), suffix=DRAFT, dir=target.parent)
        if fcntl is None:  # Windows, where a file that is open cannot be renamed either.
            os.close(handle)
            return None, Path(name)
        with contextlib.suppress(OSError):
            # `flock`, because a lock of `lockf` ends when the writer closes the file once.
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(handle).st_nlink:
            return handle, Path(name)
        os.close(handle)  # Another process took it for an abandoned one before it was locked.
    raise OSError(None, "other processes remove every new file")


def _is_abandoned(draft: Path) -> bool:
    if fcntl is None:
        return time.time() - draft.stat().st_mtime > _OLD_SECONDS
    handle = os.open(draft, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True


def _behind_links(path: Path) -> Path:
    if not path.is_symlink():
        return path
    try:
        return path.resolve()
    except RuntimeError as error:  # Python below 3.13, for links in a circle
        raise OSError(None, "symbolic links in a circle") from error


def _mode_of(target: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return stat.S_IMODE(target.stat().st_mode)
    return 0o666 & ~_umask()


def _prefix(target: Path) -> str:
    return f".{target.name[:_NAME_LENGTH]}."


def _escaped(name: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", name)


def _flush_to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _umask() -> int:
    # The only way to read the umask is to set it.
    mask = os.umask(0)
    os.umask(mask)
    return mask
