"""Opening of files from outside: ordinary files alone, and no more bytes than a bound."""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

MOST_BYTES = 64 * 2**20
"""Bytes of one file that is parsed as a whole, unless its reader says otherwise."""
MOST_ANNOTATION_BYTES = 4 * 2**30
"""Bytes of one file with the annotations of a whole split; the largest public ones have 1 GiB."""
MOST_IMAGE_BYTES = 2**30
"""Bytes of one encoded image."""

_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


def open_file(path: str | os.PathLike[str]) -> BufferedReader:
    """Open an ordinary file for reading bytes.

    A pipe would wait for a writer forever, and a device may never end, so neither is opened.

    Raises:
        OSError: There is no such file, it is no ordinary file, or it cannot be read. `strerror` has
            the reason.
    """
    try:
        _require_ordinary(os.stat(path).st_mode, path)  # noqa: PTH116 - a path of any type
        # Between the two calls the name may have become that of a pipe.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _BINARY)
    except ValueError as error:  # The name holds a NUL or half of a character.
        raise OSError(errno.EINVAL, "the system has no such names", os.fspath(path)) from error
    try:
        _require_ordinary(os.fstat(handle).st_mode, path)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


_BINARY = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


def require_file(path: str | os.PathLike[str]) -> None:
    """Check that `path` is an ordinary file that can be read, for libraries that open it alone.

    Raises:
        OSError: As `open_file`.
    """
    open_file(path).close()


def read_bytes(path: str | os.PathLike[str], most: int = MOST_BYTES) -> bytes:
    """Return the bytes of an ordinary file.

    Raises:
        OSError: As `open_file`, or the file has more than `most` bytes.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        # Some files of the system have the size 0 and contents.
        data = file.read(size + 1 if 0 < size <= most else most + 1) if size <= most else b""
    if size > most or len(data) > most:
        reason = f"more than the {most:,} bytes that are read"
        raise OSError(errno.EFBIG, reason, os.fspath(path))
    return data


def read_text(path: str | os.PathLike[str], most: int = MOST_BYTES) -> str:
    """Return the UTF-8 text of an ordinary file, without a byte order mark.

    Raises:
        OSError: As `read_bytes`.
        UnicodeDecodeError: The bytes are no UTF-8.
    """
    text = read_bytes(path, most).decode("utf-8-sig")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _require_ordinary(mode: int, path: str | os.PathLike[str]) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    for is_kind, name in _KINDS:
        if is_kind(mode):
            reason = f"it is {name}, where an ordinary file is read"
            raise OSError(errno.EINVAL, reason, os.fspath(path))


def is_file(path: str | os.PathLike[str]) -> bool:
    """Return whether `path` is an ordinary file; a name that the system cannot have is none.

    `Path.is_file` raises an error for some names: a line of a list can be longer than any name.
    """
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Return whether `path` is a folder, as `is_file` does."""
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):
        return False
