"""Time training steps with threads that spin and threads that sleep while they wait.

    python benchmarks/threads.py [--jobs 1 4] [--steps 6] [--seconds 60]

A job is a process that trains torchvision's MobileNetV2 on random images, with as many threads as
torch takes by itself. So many jobs run at a time, once with `OMP_WAIT_POLICY=ACTIVE`, which is how
torch comes, and once as the command line of flyweight sets it: `PASSIVE`, after a short spin. Each
job takes its steps while all others run, and the median of all steps counts. Takes less than 5
minutes on a quiet machine. One row per number of jobs is added to `results/threads.csv`, with the
load of the machine before: a row with a load well above 0 is no measurement of a quiet machine.
"""

import argparse
import csv
import datetime
import os
import statistics
import subprocess
import sys
from pathlib import Path

import torch

from flyweight.cli.main import WAITING
from flyweight.files import write_text
from flyweight.measuring.environment import commit, hardware
from flyweight.processors import load_average

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "threads.csv"
POLICIES = ("ACTIVE", "PASSIVE")
COLUMNS = (
    *(
        "jobs",
        "spin_count",
        "active_step_seconds",
        "passive_step_seconds",
        "ratio",
        "steps",
        "threads_per_job",
    ),
    *("load_before", "hardware", "runtime", "commit", "date", "note"),
)
JOB = """
import sys, time
import torch, torchvision
steps, seconds, size = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
torch.manual_seed(0)
model = torchvision.models.mobilenet_v2(weights=None, num_classes=10).train()
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
images, labels = torch.rand(8, 3, size, size), torch.arange(8)

def step():
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(model(images), labels).backward()
    optimizer.step()

step()
print("ready", flush=True)
sys.stdin.readline()
began, found = time.monotonic(), []
while len(found) < steps and time.monotonic() - began < seconds:
    start = time.monotonic()
    step()
    found.append(time.monotonic() - start)
print(*found, flush=True)
while sys.stdin.readline():  # Keeps the load up until all jobs are done.
    step()
"""


def step_seconds(policy: str, jobs: int, *, steps: int, seconds: float, size: int) -> list[float]:
    """Run jobs side by side and return the seconds of all their steps."""
    own = ("OMP_", "GOMP_")
    environment = {name: v for name, v in os.environ.items() if not name.startswith(own)}
    environment |= WAITING if policy == "PASSIVE" else {"OMP_WAIT_POLICY": policy}
    command = [sys.executable, "-c", JOB, str(steps), str(seconds), str(size)]
    running = [
        subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        for _ in range(jobs)
    ]
    try:
        for job in running:
            if job.stdout.readline() != "ready\n":
                raise RuntimeError("a job ended before its first step")
        for job in running:
            job.stdin.write("\n")
        return [float(word) for job in running for word in job.stdout.readline().split()]
    finally:
        for job in running:
            job.kill()
            job.communicate()


def main() -> None:
    """Measure and add the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cores = os.cpu_count() or 1
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 4 * cores])
    parser.add_argument("--steps", type=int, default=6, help="of each job")
    parser.add_argument("--seconds", type=float, default=30.0, help="at most, for one job")
    parser.add_argument("--size", type=int, default=96, help="of the images")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--note", default="")
    given = parser.parse_args()
    for jobs in given.jobs:
        load, taken = load_average(), {}
        for policy in POLICIES:
            found = step_seconds(
                policy, jobs, steps=given.steps, seconds=given.seconds, size=given.size
            )
            taken[policy] = statistics.median(found)
        ratio = taken["ACTIVE"] / taken["PASSIVE"]
        row = {
            "jobs": jobs,
            "spin_count": WAITING["GOMP_SPINCOUNT"],
            "active_step_seconds": f"{taken['ACTIVE']:.3f}",
            "passive_step_seconds": f"{taken['PASSIVE']:.3f}",
            "ratio": f"{ratio:.2f}",
            "steps": given.steps,
            "threads_per_job": torch.get_num_threads(),
            "load_before": load,
            "hardware": hardware(),
            "runtime": f"torch {torch.__version__}",
            "commit": commit(HERE.parent),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "note": given.note,
        }
        add_row(given.results, row)
        print(f"{jobs} jobs: {taken}, ratio {ratio:.2f}, load before {load}")


def add_row(path: Path, row: dict[str, object]) -> None:
    """Add one row to a table, which is written whole."""
    rows = [row]
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            rows = [*csv.DictReader(file), row]
    lines = [",".join(COLUMNS)]
    lines += [",".join(_cell(one.get(name, "")) for name in COLUMNS) for one in rows]
    write_text(path, "\n".join([*lines, ""]))


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return f'"{text}"' if "," in text else text


if __name__ == "__main__":
    main()
