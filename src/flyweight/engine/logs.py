"""Logs of a run on disk: CSV files, and TensorBoard's files."""

import csv
import io
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from flyweight.engine.event_file import EventFile
from flyweight.errors import FileError
from flyweight.files import write_text


class Logs:
    """Writes `train.csv`, `metrics.csv` and TensorBoard's files into a folder.

    A run that resumes after step `start` continues the same files; rows that an interrupted run
    wrote for later steps are removed, so that no step appears twice. A file begins with its first
    row, and every later row is added in one write: a process that is killed leaves at most half a
    row, which is removed on resume, and never a file without names of columns.

    Raises:
        FileError: The folder cannot be written. So do all methods.
    """

    def __init__(self, folder: Path, start: int) -> None:
        self.folder = folder
        with _explained(folder):
            for name in ("train.csv", "metrics.csv"):
                _keep_steps_to(folder / name, start)
            self.board = EventFile(folder / "tensorboard", start)

    def train(self, done: int, values: Mapping[str, float]) -> None:
        """Write loss terms and learning rate after `done` steps."""
        self._write("train", done, values)

    def metrics(self, done: int, values: Mapping[str, float]) -> None:
        """Write the metrics of an evaluation after `done` steps."""
        self._write("metrics", done, values)

    def _write(self, kind: str, done: int, values: Mapping[str, float]) -> None:
        path = self.folder / f"{kind}.csv"
        with _explained(path):
            _append(path, {"step": done, **values})
            self.board.add(kind, done, values)

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the files."""
        with _explained(self.folder):
            self.board.close()


class NoLogs:
    """Logs of every process but the first, which writes nothing."""

    def train(self, done: int, values: Mapping[str, float]) -> None:
        """Write nothing."""

    def metrics(self, done: int, values: Mapping[str, float]) -> None:
        """Write nothing."""

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *error: object) -> None:
        """End."""


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Raise an error of the system as a `FileError` about `path`."""
    try:
        yield
    except OSError as error:
        raise FileError(
            f"'{path}' must be writable. Received: {error.strerror or error}. "
            "Free space there or choose another folder, then resume."
        ) from error


def _append(path: Path, row: Mapping[str, float]) -> None:
    if not path.exists():
        write_text(path, _row(row) + _row(row.values()), durable=False)
        return
    with path.open(encoding="utf-8", newline="") as file:
        columns = next(csv.reader(file))
    text = _row(row.get(column, "") for column in columns)
    file_number = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        _write_all(file_number, text.encode())
    finally:
        os.close(file_number)


def _write_all(file_number: int, content: bytes) -> None:
    while content:  # One write, unless the disk has no space for all of it.
        content = content[os.write(file_number, content) :]


def _row(values: Iterable[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


def _keep_steps_to(path: Path, start: int) -> None:
    if not path.exists():
        return
    header, *lines = path.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
    kept = [line for line in lines if _is_whole(line, header) and _step(line) <= start]
    if not kept:
        path.unlink()
        return
    write_text(path, "".join(f"{line}\n" for line in (header, *kept)))


def _is_whole(line: str, header: str) -> bool:
    # A process that is killed may leave half a line; its step comes again.
    return line.count(",") == header.count(",") and _step(line) >= 0


def _step(line: str) -> int:
    number = line.split(",", 1)[0]
    return int(number) if number.isascii() and number.isdigit() and len(number) < 20 else -1
