"""Mutate good files of every kind that is read from outside, and count what the readers do.

    python benchmarks/fuzz.py --cases 300000
    python benchmarks/fuzz.py --reader config --case 17     # one case again, with its traceback

A reader may return, or raise one of the error classes that it promises. Anything else is a failure:
another exception, a death by signal, more time or more memory than the limits. Cases run in
processes that are forked after all imports; one that dies is replaced, and its case is counted.
"""

import argparse
import contextlib
import datetime
import gc
import json
import mmap
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fuzz_mutations import mutated
from fuzz_readers import Reader, readers

from flyweight.files import write_text
from flyweight.measuring.environment import hardware

HERE = Path(__file__).resolve().parent
RESULT = HERE / "results" / "fuzz.csv"
COLUMNS = (
    *("parser", "cases", "read", "refused", "failures", "seconds", "seed", "limit_seconds"),
    *("limit_mib", "note", "hardware", "commit", "date"),
)
READ, REFUSED, FAILED = b"r", b"x", b"F"
_CHUNK = 500


@dataclass(frozen=True)
class Limits:
    """What one case may take.

    Attributes:
        seconds: Time of the clock.
        mib: Growth of the largest resident memory.
    """

    seconds: float = 5.0
    mib: int = 512


@dataclass
class Counts:
    """Outcomes of the cases of one reader.

    Attributes:
        outcomes: How many cases were read, refused, failed.
        failures: Number of a case to what happened.
        seconds: Sum over the processes.
    """

    outcomes: Counter[bytes] = field(default_factory=Counter)
    failures: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0


def file_of(reader: Reader, seed: int, case: int) -> bytes:
    """Return the mutated file of a case: a function of its numbers alone."""
    return mutated(reader.kind, random.Random(f"{seed}/{reader.name}/{case}"), reader.seeds)


def outcome_of(reader: Reader, data: bytes, folder: Path) -> tuple[bytes, str]:
    """Let `reader` read `data`; return the outcome, and of a failure what happened."""
    path = folder / reader.file_name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    try:
        reader.read(path)
    except reader.promised as error:
        return (
            (REFUSED, "")
            if "\n" not in str(error)
            else (FAILED, f"two lines: {str(error).splitlines()}")
        )
    except BaseException as error:  # noqa: BLE001 - the subject of this file
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "flyweight" in f.filename]
        at = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
        with contextlib.suppress(Exception):
            return FAILED, f"{type(error).__name__}{at}: {' '.join(str(error).split())[:120]}"
        return FAILED, f"{type(error).__name__}{at}"
    return READ, ""


def run(reader: Reader, cases: range, seed: int, limits: Limits, jobs: int = 1) -> Counts:
    """Run the cases of one reader in processes of their own."""
    counts = Counts()
    waiting = [
        range(at, min(at + _CHUNK, cases.stop)) for at in range(cases.start, cases.stop, _CHUNK)
    ]
    running: dict[int, _Worker] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            worker = _Worker(reader, waiting.pop(0), seed, limits)
            running[worker.output] = worker
        for output in select.select(list(running), [], [], 1.0)[0]:
            if not running[output].receive():
                rest = running.pop(output).take(counts)
                if rest:
                    waiting.insert(0, rest)
    return counts


class _Worker:
    """A process that runs cases, and tells the outcome of each in memory that both can see."""

    def __init__(self, reader: Reader, cases: range, seed: int, limits: Limits) -> None:
        self.cases, self._began, self._text = cases, time.monotonic(), b""
        self._seen = mmap.mmap(-1, max(1, len(cases)))
        self.output, end = os.pipe()
        self.process = os.fork()
        if self.process == 0:
            os.close(self.output)
            _work(reader, cases, seed, limits, self._seen, end)
        os.close(end)

    def receive(self) -> bool:
        """Take what the process has written; return whether it may write more."""
        data = os.read(self.output, 65536)
        self._text += data
        return bool(data)

    def take(self, counts: Counts) -> range | None:
        """Add what the process found; return the cases that it did not reach."""
        os.close(self.output)
        _, status = os.waitpid(self.process, 0)
        seen = self._seen[:].rstrip(b"\0")[: len(self.cases)]
        counts.outcomes.update(bytes([outcome]) for outcome in seen)
        counts.seconds += time.monotonic() - self._began
        for line in self._text.decode("utf-8", "replace").splitlines():
            case, _, what = line.partition(" ")
            counts.failures[int(case)] = what
        at = self.cases.start + len(seen)
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            late = number == signal.SIGALRM
            counts.failures[at] = (
                "over the limit of seconds" if late else signal.Signals(number).name
            )
            counts.outcomes[FAILED] += 1
            at += 1
        elif os.waitstatus_to_exitcode(status) and not seen:
            raise RuntimeError(f"case {at} could not be made; run it with --case {at}")
        return range(at, self.cases.stop) if at < self.cases.stop else None


def _work(
    reader: Reader, cases: range, seed: int, limits: Limits, seen: mmap.mmap, output: int
) -> None:
    """Run cases, then end the process; so does a case that takes too long or too much memory."""
    code = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        base = _largest_mib()
        # Far above the limit, so that a reader that asks for too much is not stopped by this.
        most = (_address_mib() + 8 * limits.mib + 2048) * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        with _own_folder() as folder:
            for place, case in enumerate(cases):
                data = file_of(reader, seed, case)
                signal.setitimer(signal.ITIMER_REAL, limits.seconds)
                outcome, what = outcome_of(reader, data, folder)
                signal.setitimer(signal.ITIMER_REAL, 0)
                grown = _largest_mib() - base
                if grown > limits.mib:
                    outcome, what = FAILED, f"took {grown:,} MiB"
                if outcome == FAILED:
                    os.write(output, f"{case} {what}\n".encode("utf-8", "backslashreplace"))
                seen[place : place + 1] = outcome
                if grown > limits.mib:
                    break  # The largest memory of this process stays; another one goes on.
        code = 0
    finally:
        os._exit(code)


@contextlib.contextmanager
def _own_folder() -> Iterator[Path]:
    home = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # no disk is needed
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir=home))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _largest_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def _address_mib() -> int:
    with contextlib.suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() >> 20
    return 16384


def shares(known: Sequence[Reader], cases: int) -> dict[str, int]:
    """Return the cases of every reader, by its weight."""
    total = sum(reader.weight for reader in known)
    return {reader.name: max(1, round(cases * reader.weight / total)) for reader in known}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=300_000, help="over all readers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader", action="append", help="only these")
    parser.add_argument("--case", type=int, help="run one case in this process, with its traceback")
    parser.add_argument("--seconds", type=float, default=Limits.seconds, help="limit of a case")
    parser.add_argument("--mib", type=int, default=Limits.mib, help="limit of a case")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--note", default="")
    parser.add_argument("--commit", default="")
    parser.add_argument("--save", type=Path, help="CSV with a row per reader")
    return parser.parse_args()


def main() -> int:
    """Run the cases; return the status: 1 if there was a failure."""
    given, limits = _arguments(), None
    limits = Limits(given.seconds, given.mib)
    warnings.simplefilter("ignore")
    rows, failed = [], 0
    with tempfile.TemporaryDirectory() as made:
        known = [one for one in readers(Path(made)) if not given.reader or one.name in given.reader]
        if given.case is not None:
            return _one(known[0], given.seed, given.case)
        gc.freeze()
        for reader in known:
            cases = shares(known, given.cases)[reader.name]
            counts = run(reader, range(cases), given.seed, limits, given.jobs)
            failed += counts.outcomes[FAILED]
            rows.append(_row(reader, counts, given))
            _show(reader, counts)
    if given.save:
        write_text(given.save, _table(rows))
    return 1 if failed else 0


def _one(reader: Reader, seed: int, case: int) -> int:
    data = file_of(reader, seed, case)
    print(f"{len(data):,} bytes: {data[:2000]!r}")
    with _own_folder() as folder:
        path = folder / reader.file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        reader.read(path)
    return 0


def _row(reader: Reader, counts: Counts, given: argparse.Namespace) -> dict[str, object]:
    return {
        "parser": reader.name,
        "cases": counts.outcomes.total(),
        "read": counts.outcomes[READ],
        "refused": counts.outcomes[REFUSED],
        "failures": counts.outcomes[FAILED],
        "seconds": round(counts.seconds, 1),
        "seed": given.seed,
        "limit_seconds": given.seconds,
        "limit_mib": given.mib,
        "note": given.note,
        "hardware": hardware(),
        "commit": given.commit,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _show(reader: Reader, counts: Counts) -> None:
    total, seconds = counts.outcomes.total(), max(counts.seconds, 1e-9)
    print(
        f"{reader.name}: {total:,} cases, {counts.outcomes[READ]:,} read, "
        f"{counts.outcomes[REFUSED]:,} refused, {counts.outcomes[FAILED]:,} failures, "
        f"{total / seconds:,.0f} per second"
    )
    kinds = Counter(what.partition(":")[0] for what in counts.failures.values())
    for case, what in sorted(counts.failures.items()):
        kind = what.partition(":")[0]
        if kinds.pop(kind, None):
            print(f"  case {case}: {what}")
    sys.stdout.flush()


def _table(rows: Sequence[dict[str, object]]) -> str:
    lines: list[list[object]] = [list(COLUMNS), *([row[key] for key in COLUMNS] for row in rows)]
    text = []
    for line in lines:
        cells = [json.dumps(cell) if "," in str(cell) else str(cell) for cell in line]
        text.append(",".join(cells))
    return "\n".join(text) + "\n"


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # Libraries report at the end what forked processes have not freed.
