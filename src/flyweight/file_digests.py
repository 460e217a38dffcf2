"""Digests of files, remembered between runs so that unchanged files are not read again.

Beside every digest stand the size and the modification time that the file had. They are kept in
the user's cache folder (`$XDG_CACHE_HOME/flyweight`, else `~/.cache/flyweight`), in one small JSON
file for each folder of files. Where the cache cannot be used, files are simply read again.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from flyweight.errors import FileError
from flyweight.files import write_text
from flyweight.progress import SILENT, Progress
from flyweight.untrusted.file_bytes import open_file, read_text
from flyweight.untrusted.json_values import parse_json

_THREADS = 8
# A file that was changed moments ago may change again without a new modification time.
_SETTLED_SECONDS = 2.0
Entry = tuple[int, int, str]
"""Size in bytes, modification time in nanoseconds, digest."""


def digest_file(path: Path) -> str:
    """Return the SHA-256 digest of a file's contents.

    Raises:
        OSError: The file cannot be read.
    """
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """Return the folder of what is kept for this user between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "flyweight" / "digests"


class FileDigests:
    """Digests of files, with a memory.

    Args:
        folder: Keeps the digests; by default `cache_folder()`.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    def of(self, paths: Sequence[Path], progress: Progress = SILENT) -> list[str]:
        """Return the digest of each file, in order.

        Args:
            paths: The files.
            progress: Receives the number of files whose digest is known.

        Raises:
            FileError: A file cannot be read.
        """
        by_folder: dict[Path, list[Path]] = {}
        for path in paths:
            by_folder.setdefault(path.parent, []).append(path)
        found: dict[Path, str] = {}
        task = progress.start("read files", len(set(paths)))
        try:
            for parent, files in by_folder.items():
                for path, digest in self._in_one_folder(parent, files):
                    found[path] = digest
                    task.update(len(found))
        finally:
            task.finish()
        return [found[path] for path in paths]

    def _in_one_folder(self, parent: Path, files: Iterable[Path]) -> Iterator[tuple[Path, str]]:
        try:
            states = {path: path.stat() for path in files}
            known = self._read(parent)
            unknown = [
                path
                for path, state in states.items()
                if known.get(path.name, (-1, -1, ""))[:2] != (state.st_size, state.st_mtime_ns)
            ]
            yield from ((path, known[path.name][2]) for path in states.keys() - unknown)
            fresh: dict[Path, str] = {}
            with ThreadPoolExecutor(_THREADS) as pool:
                for path, digest in zip(unknown, pool.map(digest_file, unknown), strict=True):
                    fresh[path] = digest
                    yield path, digest
        except OSError as error:
            raise FileError(
                f"Files of a data set must be readable. Received: {error.strerror or error}, at "
                f"'{error.filename}'. Correct the list that names it, or the file."
            ) from error
        self._remember(parent, known, {path: (states[path], fresh[path]) for path in unknown})

    def _file_of(self, parent: Path) -> Path:
        name = hashlib.sha256(os.fsencode(parent.resolve())).hexdigest()[:32]
        return (self._folder or cache_folder()) / f"{name}.json"

    def _read(self, parent: Path) -> dict[str, Entry]:
        try:
            document = parse_json(read_text(self._file_of(parent)))
            return {str(name): _entry(*values) for name, values in document.items()}
        except (OSError, ValueError, TypeError, AttributeError, RuntimeError):
            return {}  # Nothing is lost but time.

    def _remember(
        self,
        parent: Path,
        known: dict[str, Entry],
        fresh: dict[Path, tuple[os.stat_result, str]],
    ) -> None:
        latest = time.time_ns() - int(_SETTLED_SECONDS * 1e9)
        settled = {
            path.name: (state.st_size, state.st_mtime_ns, digest)
            for path, (state, digest) in fresh.items()
            if state.st_mtime_ns < latest
        }
        if not settled:
            return
        text = json.dumps({**known, **settled})
        with contextlib.suppress(FileError, RuntimeError):
            write_text(self._file_of(parent), text, durable=False)


def _entry(size: Any, modified: Any, digest: Any) -> Entry:
    return int(size), int(modified), str(digest)
