"""Prune half of every group of hundreds of networks and check each result.

    python benchmarks/graph_coverage.py --suite torchvision-classification
    python benchmarks/graph_coverage.py --suite timm --torch-pruning
    python benchmarks/graph_coverage.py --only resnet50 densenet201 --fresh

Every network runs in a process of its own with limits of CPU seconds and memory. One row per
network and tool goes to `results/graph_coverage.csv`; what is there from this commit is not
measured again. README.md describes the protocol.
"""

import argparse
import multiprocessing
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from pathlib import Path

import coverage_probe
from coverage_case import Case
from coverage_models import SUITES, cases_of
from coverage_table import COLUMNS, line_of, summary
from tables import read_rows, save_rows

from flyweight.measuring.environment import commit, hardware

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "graph_coverage.csv"
_REASON_LENGTH = 160
_WALL_PER_CPU = 20
"""How much longer than its CPU limit a child may take before it is taken to be stuck."""

Row = dict[str, str]


def write_row(path: Path, row: Row) -> None:
    """Put `row` into a results file in place of the one of the same suite, model and tool."""
    rows = [other for other in read_rows(path, COLUMNS) if _key(other) != _key(row)]
    save_rows(path, [*rows, row], COLUMNS)


def _key(row: Row) -> tuple[str, str, str]:
    return row["suite"], row["model"], row["tool"]


@dataclass(frozen=True)
class Settings:
    """How every network is run.

    Attributes:
        limit: CPU seconds for each step of the tool.
        memory: Bytes per process.
        exports: Which exports to try: `torch`, `onnx`.
        facts: Columns that are the same in every row: commit, hardware.
        verify: Cut again with the check of `prune`.
    """

    limit: int
    memory: int
    exports: tuple[str, ...]
    facts: Row
    verify: bool = True


@dataclass
class _Child:
    """A running process and what it has told so far."""

    case: Case
    tool: str
    process: ForkProcess
    connection: Connection
    deadline: float
    told: Row = field(default_factory=dict)


def start(case: Case, tool: str, settings: Settings) -> _Child:
    """Run `probe` on a network in a forked process."""
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_run_child, args=(case, tool, settings, sending))
    with warnings.catch_warnings():
        # Newer Pythons warn of threads in the parent; the child's torch uses none of them.
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    sending.close()
    deadline = time.monotonic() + _WALL_PER_CPU * settings.limit
    return _Child(case, tool, process, receiving, deadline)


def _run_child(case: Case, tool: str, settings: Settings, sending: Connection) -> None:
    def report(**columns: object) -> None:
        sending.send({name: str(value) for name, value in columns.items()})

    limits = coverage_probe.Limits(settings.limit, settings.memory, settings.verify)
    coverage_probe.probe(case, tool, limits, settings.exports, report)


def finished(children: list[_Child]) -> _Child | None:
    """Listen to the children; return one that has ended, if one has."""
    by_connection = {child.connection: child for child in children}
    for connection in wait(list(by_connection), timeout=1):
        child = by_connection[connection]  # type: ignore[index]
        try:
            child.told |= child.connection.recv()
        except EOFError:
            child.process.join()
            return child
    for child in children:
        if time.monotonic() > child.deadline:
            child.process.kill()
            child.process.join()
            child.told |= {"status": "timeout", "reason": f"{child.told.get('phase')}: stuck"}
            return child
    return None


def row_of(child: _Child, settings: Settings) -> Row:
    """Return the row of a child that has ended, however it did."""
    told = dict(child.told)
    phase = told.pop("phase", "start")
    if "status" not in told:
        code = child.process.exitcode or 0
        slow = code == -signal.SIGXCPU
        died = f"{phase}: died with {signal.Signals(-code).name if code < 0 else code}"
        told["status"] = "timeout" if slow else "crashed"
        told["reason"] = f"{phase}: more than {settings.limit} CPU seconds" if slow else died
    told["reason"] = " ".join(told["reason"].split())[:_REASON_LENGTH]
    named = {"suite": child.case.suite, "model": child.case.name, "tool": child.tool}
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return {**named, **told, **settings.facts, "date": date}


def run(
    jobs: Sequence[tuple[Case, str]], settings: Settings, path: Path, at_once: int = 1
) -> Iterator[Row]:
    """Run networks with tools, write their rows, and yield each row as it is done."""
    waiting, children = list(jobs), list[_Child]()
    while waiting or children:
        while waiting and len(children) < at_once:
            children.append(start(*waiting.pop(0), settings))
        child = finished(children)
        if child is not None:
            children.remove(child)
            child.connection.close()
            row = row_of(child, settings)
            write_row(path, row)
            yield row


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; the exit status is 1 where a result was wrong."""
    options = _parser().parse_args(arguments)
    facts = {
        "commit": commit(HERE.parent) or "",
        "hardware": hardware(),
    }
    exports = ("torch", "onnx") if options.onnx else () if options.no_export else ("torch",)
    memory = options.memory_gb * 2**30
    settings = Settings(options.limit_seconds, memory, exports, facts, not options.no_verify)
    wanted = [(case, tool) for case in _chosen(options) for tool in _tools(options)]
    done = set() if options.fresh else _measured(options.results, facts["commit"])
    jobs = [(case, tool) for case, tool in wanted if (case.suite, case.name, tool) not in done]
    print(f"{len(jobs)} of {len(wanted)} to run", flush=True)
    for number, row in enumerate(run(jobs, settings, options.results, options.jobs), 1):
        print(f"{number:4} {line_of(row)}", flush=True)
    asked = {(case.suite, case.name, tool) for case, tool in wanted}
    rows = [row for row in read_rows(options.results, COLUMNS) if _key(row) in asked]
    print(summary(rows))
    return int(any(row["status"] == "wrong" for row in rows))


def _measured(path: Path, commit_now: str) -> set[tuple[str, str, str]]:
    """Return what need not be measured again; our commit means nothing to another tool."""
    return {
        _key(row)
        for row in read_rows(path, COLUMNS)
        if row["commit"] == commit_now or row["tool"] != "flyweight"
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Measure which networks can be pruned exactly")
    parser.add_argument("--suite", nargs="+", choices=list(SUITES), default=list(SUITES))
    parser.add_argument("--only", nargs="+", metavar="NAME", help="models, in any of the suites")
    parser.add_argument("--torch-pruning", action="store_true", help="measure it, too")
    parser.add_argument("--not-ours", action="store_true", help="leave flyweight out")
    parser.add_argument("--onnx", action="store_true", help="export to ONNX, too")
    parser.add_argument("--no-verify", action="store_true", help="leave out prune's own check")
    parser.add_argument("--sample", type=int, default=1, metavar="N", help="every N-th of a suite")
    parser.add_argument("--no-export", action="store_true", help="do not export, for a quick look")
    parser.add_argument("--jobs", type=int, default=1, help="networks at once")
    parser.add_argument("--limit-seconds", type=int, default=60, help="CPU seconds per step")
    parser.add_argument("--memory-gb", type=int, default=12, help="memory per network")
    parser.add_argument("--fresh", action="store_true", help="measure what is there again")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser


def _chosen(options: argparse.Namespace) -> list[Case]:
    if not options.only:
        return [case for suite in options.suite for case in cases_of(suite)[:: options.sample]]
    cases = [case for suite in options.suite for case in cases_of(suite)]
    unknown = set(options.only) - {case.name for case in cases}
    if unknown:
        raise SystemExit(f"no such model in {', '.join(options.suite)}: {', '.join(unknown)}")
    return [case for case in cases if case.name in options.only]


def _tools(options: argparse.Namespace) -> list[str]:
    ours = [] if options.not_ours else ["flyweight"]
    return ours + (["torch-pruning"] if options.torch_pruning else [])


if __name__ == "__main__":
    sys.exit(main())
