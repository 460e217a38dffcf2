"""Logs of a run on disk: CSV files, and TensorBoard's files."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from torch.utils.tensorboard import SummaryWriter

from flyweight.errors import FileError
from flyweight.files import write_text


class Logs:
    """Writes `train.csv`, `metrics.csv` and TensorBoard's files into a folder.

    A run that resumes after step `start` continues the same files; rows that an interrupted run
    wrote for later steps are removed, so that no step appears twice.
    """

    def __init__(self, folder: Path, start: int) -> None:
        self.folder = folder
        for name in ("train.csv", "metrics.csv"):
            _keep_steps_to(folder / name, start)
        self.board: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)

    def train(self, done: int, values: Mapping[str, float]) -> None:
        """Write loss terms and learning rate after `done` steps."""
        self._write("train", done, values)

    def metrics(self, done: int, values: Mapping[str, float]) -> None:
        """Write the metrics of an evaluation after `done` steps."""
        self._write("metrics", done, values)
        self.board.flush()

    def _write(self, kind: str, done: int, values: Mapping[str, float]) -> None:
        path = self.folder / f"{kind}.csv"
        try:
            _append(path, {"step": done, **values})
            for name, value in values.items():
                self.board.add_scalar(f"{kind}/{name}", value, done)
        except OSError as error:
            raise FileError(
                f"'{path}' must be writable. Received: {error.strerror or error}. "
                "Free space there or choose another folder, then resume."
            ) from error

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the files."""
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


def _append(path: Path, row: Mapping[str, float]) -> None:
    columns = list(row)
    fresh = not path.exists()
    if not fresh:
        with path.open(encoding="utf-8", newline="") as file:
            columns = next(csv.reader(file))
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        if fresh:
            writer.writeheader()
        writer.writerow(row)


def _keep_steps_to(path: Path, start: int) -> None:
    if start == 0:
        path.unlink(missing_ok=True)
    if not path.exists():
        return
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    # A process that is killed may leave half a line; its step comes again.
    kept = [line for line in lines if line.count(",") == header.count(",") and _step(line) <= start]
    write_text(path, "".join(f"{line}\n" for line in (header, *kept)))


def _step(line: str) -> int:
    return int(line.split(",", 1)[0])
