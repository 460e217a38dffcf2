"""Measuring process as its parent sees it: start it, send requests, and end it in every case."""

import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from flyweight.errors import MeasureError


class RequestError(Exception):
    """An error that the child answered a request with; the child still runs.

    Attributes:
        kind: Class name of the exception in the child.
    """

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class WorkerProcess:
    """A child process that answers JSON lines (see `worker`); a context manager that ends it.

    Args:
        name: What the child measures, for error messages.
        timeout_seconds: How long one answer may take before the child is killed.
    """

    def __init__(self, name: str, *, timeout_seconds: float) -> None:
        self._name = name
        self._timeout_seconds = timeout_seconds
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "flyweight.measuring.worker", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            encoding="utf-8",
            env=_environment(),
            start_new_session=True,  # Ctrl-C reaches the parent only
        )

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._process.pid

    def ask(self, operation: str, **arguments: Any) -> Any:
        """Send one request and return what the child answers.

        Raises:
            RequestError: The child answered with an error.
            MeasureError: The child ended, or did not answer in time.
        """
        expired = threading.Event()
        timer = threading.Timer(self._timeout_seconds, self._kill, [expired])
        timer.daemon = True
        timer.start()
        try:
            line = self._exchange(json.dumps({"op": operation, **arguments}))
        finally:
            timer.cancel()
        if not line.endswith("\n"):
            raise MeasureError(self._reason_of_end(operation, timed_out=expired.is_set()))
        answer = json.loads(line)
        if "error" in answer:
            raise RequestError(answer["error"], answer["kind"])
        return answer["ok"]

    def _exchange(self, request: str) -> str:
        # Both pipes exist, because both were requested from Popen; mypy does not know that.
        sender, receiver = self._process.stdin, self._process.stdout
        if sender is None or receiver is None:
            return ""
        try:
            sender.write(request + "\n")
            sender.flush()
        except (BrokenPipeError, OSError):
            return ""
        return receiver.readline()

    def _kill(self, expired: threading.Event) -> None:
        expired.set()
        self._process.kill()

    def _reason_of_end(self, operation: str, *, timed_out: bool) -> str:
        code = self._process.wait()
        self._stderr.seek(0)
        lines = self._stderr.read().decode("utf-8", "replace").strip().splitlines()
        last = f" Its last line on stderr: {lines[-1].strip()}" if lines else ""
        if timed_out:
            return (
                f"'{self._name}' must answer within {self._timeout_seconds:g} s. Received: "
                f"no answer to '{operation}'. Measure a smaller model or raise the time limit."
            )
        return (
            f"The measuring process of '{self._name}' must survive '{operation}'. Received: exit "
            f"code {code}{_signal_name(code)}.{last} Check that the file runs and memory suffices."
        )

    def close(self) -> None:
        """End the child and close its pipes; a second call does nothing."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                _close_quietly(pipe)
        self._process.wait()
        self._stderr.close()

    def __enter__(self) -> "WorkerProcess":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _close_quietly(pipe: Any) -> None:
    try:
        pipe.close()
    except OSError:  # the buffer holds a request that a dead child did not read
        return


def _signal_name(code: int) -> str:
    return f" (killed by signal {-code})" if code < 0 else ""


def _environment() -> dict[str, str]:
    # The child must import the same package as the parent, wherever that lies.
    source = str(Path(__file__).resolve().parents[2])
    paths = [source, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
