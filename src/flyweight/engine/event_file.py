"""Event file of TensorBoard, written in this process's own thread.

The writers of TensorBoard and torch write in a thread of their own, whose errors, such as a full
disk, nobody can catch.
"""

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter


class EventFile:
    """A new file of scalars in a folder.

    Args:
        folder: Is created if needed. Every run and every resumed run adds a file.
        start: The scalars of steps after this one in older files of the folder are not shown.

    Raises:
        OSError: The folder cannot be written. So do all methods.
    """

    def __init__(self, folder: Path, start: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files of a folder in the order of their names.
        stem = f"events.out.tfevents.{time.time_ns() // 1000:016}.{socket.gethostname()}"
        self._writer = RecordWriter((folder / f"{stem}.{os.getpid()}").open("xb"))
        self._write(Event(file_version="brain.Event:2"))
        self._write(Event(session_log=SessionLog(status=SessionLog.START), step=start + 1))

    def add(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Write one scalar per value, named `KIND/NAME`."""
        scalars = [
            Summary.Value(tag=f"{kind}/{name}", simple_value=value)
            for name, value in values.items()
        ]
        self._write(Event(summary=Summary(value=scalars), step=step))

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._writer.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._writer.write(event.SerializeToString())
        self._writer.flush()
