"""Kill commands at every operation on files, resume them, and compare with a run never killed.

    python benchmarks/faults.py [--only train prune ...] [--most 20] [--jobs 2]

Each command runs once to count its operations below the output folder (open for writing, write,
flush, truncate, rename, link, unlink, folders made and removed), and a second time: what differs
between these two runs, such as times, is not compared. Then, for every operation, the command is
killed there by SIGKILL and run again as a user resumes it. The second run must succeed, leave no
draft, lock or journal behind, and make what an uninterrupted run makes.

A kill takes as long as the command up to it. `--copies` runs the command once, copies its output
folder at every operation as a kill there would leave it, puts each copy in the place of the output
folder, and resumes that.

The operations are seen by a small library in C (`faults_operations.c`), compiled here and loaded
with LD_PRELOAD, because native libraries write files without Python's knowledge; it needs Linux and
a C compiler, and no privileges. Commands run in processes that are forked after torch was imported,
so that a kill takes seconds. One row per command goes to `results/faults.csv`.
"""

import argparse
import csv
import ctypes
import datetime
import hashlib
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "faults.csv"
LIBRARY = "FLYWEIGHT_FAULTS_LIBRARY"
COLUMNS = (
    *(
        "command",
        "how",
        "operations",
        "kills",
        "right",
        "wrong",
        "drafts_left",
        "seconds",
        "load_before",
    ),
    *("hardware", "commit", "date", "note"),
)
KEY = ("command", "how")
SMALL = (
    *("width=0.1", "input_size=64", "eval_batch_size=2"),
    *("data.size=64", "data.train_count=4", "data.val_count=2"),
    *("train.steps=3", "train.warmup_steps=0", "train.batch_size=2", "train.num_workers=0"),
    *("train.evaluate_every=2", "train.checkpoint_every=1", "train.log_every=1"),
    *("finetune.steps=3", "finetune.warmup_steps=0", "finetune.batch_size=2"),
    *("finetune.num_workers=0", "finetune.evaluate_every=2", "finetune.checkpoint_every=1"),
    *("finetune.log_every=1", "finetune.milestones=[]", "train.milestones=[]"),
)
MEASURED = re.compile(
    r"/(seconds|date)(/|$)"
    r"|measurements\.json:/\d+/(\w+_ms|(peak|model)_bytes|runs|notes|environment|session)(/|$)"
    r"|report\.json:/notes/"
)
"""Values that are measured: two runs can have the same by chance."""
CONFIG = ("-c", "demo_digits", "-o", *SMALL)
LAYERS = ("-p", "yolo_block.0.0.0.conv.weight", "--pruned-ratios", "0.5")


@dataclass(frozen=True)
class Command:
    """A command, and how it is resumed.

    Attributes:
        start: Arguments; OUT stands for the output folder, DENSE for a trained network, and SET for
            a detection set in the VOC layout.
        resume: What is added to resume it; nothing where the same command does.
        begins_with_dense: Whether the output folder is that of the trained network.
    """

    start: tuple[str, ...]
    resume: tuple[str, ...] = ()
    begins_with_dense: bool = False


IMPORTED = (
    *("flyweight.engine.launch", "flyweight.exporting.onnx_graph", "flyweight.pipeline.chain"),
    *("flyweight.pipeline.demo", "flyweight.sensitivity.charts", "flyweight.sensitivity.page"),
    *("flyweight.data.layouts.convert", "flyweight.cli.convert_data", "torch.onnx", "onnxscript"),
    *("flyweight.cli.sensitivity", "flyweight.cli.train", "flyweight.cli.prune", "onnxruntime"),
)
"""Before processes are forked, so that each starts at once. None of them starts a thread."""
# A scan refuses a network that finds nothing, so it gets the trained one of the package.
SCAN = (
    *("sensitivity", "-c", "digit_detector", "-o", "eval_batch_size=2", "data.val_count=4"),
    *("train.num_workers=0", "-w", "SHIPPED", "-s", "OUT/sens.json", *LAYERS[:2]),
)
COMMANDS = {
    "train": Command(("train", *CONFIG, "save_dir=OUT"), ("-r",)),
    "prune": Command(
        ("prune", *CONFIG, "save_dir=OUT", "weights=OUT/demo_digits/best_model", *LAYERS),
        ("-r",),
        begins_with_dense=True,
    ),
    "scan exact": Command(SCAN),
    "scan fast": Command((*SCAN, "--mode", "fast")),
    "export": Command(("export", "-w", "DENSE", "--output-dir", "OUT")),
    "convert-data": Command(
        ("convert-data", "SET", "--from", "voc", "--to", "yolo", "--output-dir", "OUT")
    ),
    "demo": Command(
        ("demo", *CONFIG, "bench.seconds=0.1", "bench.threads=[1]", "--output-dir", "OUT")
    ),
}


@dataclass(frozen=True)
class Place:
    """Where the commands of a benchmark run."""

    folder: Path
    library: Any

    def arguments(self, words: Sequence[str], out: Path) -> list[str]:
        """Return the arguments of a command with the names of paths replaced by paths."""
        dense = self.folder / "dense" / "demo_digits" / "best_model.safetensors"
        shipped = files("flyweight.config.presets") / "digit_detector.safetensors"
        names = {"OUT": out, "DENSE": dense, "SET": self.folder / "set", "SHIPPED": shipped}
        pattern = re.compile("|".join(rf"\b{name}\b" for name in names))
        return [pattern.sub(lambda found: str(names[found[0]]), word) for word in words]

    def run(
        self, arguments: Sequence[str], out: Path, *, kill_at: int = 0, copies: Path | None = None
    ) -> tuple[int, str]:
        """Run a command in a forked process; return its wait status and the operations, by line.

        Args:
            arguments: Of the command.
            out: Its output folder.
            kill_at: Number of the operation at which it is killed; 0 for none.
            copies: Folder that takes a copy of the output folder at every operation.
        """
        listed, said = out.with_suffix(".operations"), out.with_suffix(".said")
        if copies is not None:
            copies.mkdir()
        child = os.fork()
        if child == 0:
            if copies is not None:
                self.library.faults_keep(os.fsencode(copies))
            os._exit(self._in_child(arguments, out, kill_at, listed, said))
        _, status = os.waitpid(child, 0)
        return status, listed.read_text() if listed.exists() else ""

    def _in_child(
        self, arguments: Sequence[str], out: Path, kill_at: int, listed: Path, said: Path
    ) -> int:
        from flyweight.cli.main import run

        try:
            to = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            os.dup2(to, 1)
            os.dup2(to, 2)
            out.mkdir(parents=True, exist_ok=True)
            lines = os.open(listed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            self.library.faults_start(os.fsencode(out), ctypes.c_long(kill_at), lines)
            status = run(arguments)
            sys.stdout.flush()
        except BaseException:  # noqa: BLE001 - printed, and told by the status
            traceback.print_exc()
            return 1
        return status


def main() -> int:
    """Measure and write the rows; 1 if a resumed run was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(COMMANDS), default=list(COMMANDS))
    parser.add_argument("--most", type=int, help="kills of each command, spread evenly")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--copies", action="store_true", help="resume copies of one run, one job")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--note", default="")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flyweight-faults-") as name:
        if LIBRARY not in os.environ:
            return run_with_library(Path(name))
        place = Place(Path(name), ctypes.CDLL(os.environ[LIBRARY]))
        prepare(place, given.only)
        wrong = 0
        for command in given.only:
            row = measured(place, command, given)
            wrong += int(row["wrong"])
            keep_row(given.results, row)
    return 1 if wrong else 0


def run_with_library(folder: Path) -> int:
    """Compile the library and start this program again with it."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None or not sys.platform.startswith("linux"):
        sys.stderr.write("error: faults.py needs Linux and a C compiler. Install gcc or clang.\n")
        return 2
    library = folder / "faults.so"
    source = str(HERE / "faults_operations.c")
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), source, "-ldl"]
    subprocess.run(command, check=True)
    alone = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    environment = {**os.environ, **alone, LIBRARY: str(library), "LD_PRELOAD": str(library)}
    environment["XDG_CACHE_HOME"] = str(folder / "cache")
    return subprocess.run([sys.executable, *sys.argv], env=environment, check=False).returncode


def prepare(place: Place, names: Sequence[str]) -> None:
    """Import what commands import, and make what they begin with."""
    for name in IMPORTED:
        importlib.import_module(name)
    remember_conversions(place.folder / "conversions")
    commands = [COMMANDS[name] for name in names]
    if any(command.begins_with_dense or "DENSE" in command.start for command in commands):
        out = place.folder / "dense"
        require(place.run(place.arguments(COMMANDS["train"].start, out), out)[0], out)
    from flyweight.config.data import DataConfig
    from flyweight.data.layouts.voc_write import write_voc
    from flyweight.data.loading import open_set

    digits = DataConfig(format="digits", size=32, train_count=2, val_count=1)
    for split in ("train", "val"):
        write_voc(open_set(digits, split), place.folder / "set")


def remember_conversions(folder: Path) -> None:
    """Let torch's exporter convert networks of equal weights once, for all runs together.

    It is most of the time of a demo, and it writes nothing below the output folder.
    """
    import onnx

    from flyweight.exporting import onnx_graph

    convert = onnx_graph.convert
    folder.mkdir()

    def remembered(network: Any, inputs: Any, *names: Any, target: Path, **options: Any) -> Any:
        shapes = [(tuple(one.shape), one.dtype) for one in inputs]
        digest = hashlib.sha256(repr((network, shapes, names, options)).encode())
        for name, tensor in network.state_dict().items():
            digest.update(name.encode() + tensor.numpy().tobytes())
        known = folder / digest.hexdigest()
        if not known.exists():
            proto = convert(network, inputs, *names, target=target, **options)
            draft = folder / f"{os.getpid()}"
            draft.write_bytes(proto.SerializeToString())
            draft.rename(known)
        return onnx.ModelProto.FromString(known.read_bytes())

    onnx_graph.convert = remembered


def measured(place: Place, name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Kill one command everywhere and return its row."""
    from flyweight.measuring.environment import commit, hardware
    from flyweight.processors import load_average

    command, load, began = COMMANDS[name], load_average(), time.monotonic()
    stem = name.replace(" ", "-")
    references = []
    for number in range(2):
        out = begun(place, command, f"{stem}-whole-{number}")
        status, listed = place.run(place.arguments(command.start, out), out)
        require(status, out)
        references.append(contents(out, place.folder))
        time.sleep(1.1)  # So that times differ that are in seconds.
    operations = len(listed.splitlines())
    numbers = spread(operations, given.most)

    def case(number: int) -> str:
        return killed(place, command, f"{stem}-{number:05}", number, references)

    if given.copies:
        found = copied(place, command, stem, numbers, references)
    else:
        found = dict(in_processes(case, numbers, given.jobs, place.folder))
    for number, what in found.items():
        if what:
            print(f"{name}, {listed.splitlines()[number - 1]}: {what}")
    right = sum(not what for what in found.values())
    print(f"{name}: {right} of {len(found)} kills right, {operations} operations", flush=True)
    return {
        "command": name,
        "operations": operations,
        "kills": len(found),
        "right": right,
        "wrong": len(found) - right,
        "drafts_left": sum("left behind" in what for what in found.values()),
        "seconds": f"{time.monotonic() - began:.0f}",
        "load_before": load,
        "hardware": hardware(),
        "commit": commit(HERE.parent),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "how": "copies" if given.copies else "kills",
        "note": given.note,
    }


def in_processes(
    case: Callable[[int], str], numbers: Sequence[int], jobs: int, folder: Path
) -> Mapping[int, str]:
    """Return what `case` returns for each number, in so many forked processes at a time.

    Threads would not do: a process that is forked while another thread holds a lock waits forever.
    """
    running: dict[int, int] = {}
    found: dict[int, str] = {}
    left = list(numbers)
    while left or running:
        if left and len(running) < jobs:
            number = left.pop(0)
            child = os.fork()
            if child == 0:
                try:
                    (folder / f"verdict-{number}").write_text(case(number))
                finally:
                    os._exit(0)
            running[child] = number
            continue
        number = running.pop(os.wait()[0])
        answer = folder / f"verdict-{number}"
        found[number] = answer.read_text() if answer.exists() else "the benchmark failed"
        answer.unlink(missing_ok=True)
    return {number: found[number] for number in numbers}


def killed(
    place: Place, command: Command, name: str, number: int, references: Sequence[dict[str, str]]
) -> str:
    """Kill one run at one operation and resume it; return what is wrong, or nothing."""
    out = begun(place, command, name)
    status, _ = place.run(place.arguments(command.start, out), out, kill_at=number)
    if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
        return f"ended with {status} before the operation"
    return resumed(place, command, out, references)


def resumed(place: Place, command: Command, out: Path, references: Sequence[dict[str, str]]) -> str:
    """Resume what was killed; return what is wrong, or nothing."""
    status, _ = place.run([*place.arguments(command.start, out), *command.resume], out)
    if status:
        said = out.with_suffix(".said").read_text().strip().splitlines()
        return f"the resumed run ended with {status}: {said[-1] if said else ''}"
    found = contents(out, place.folder)
    hidden = sorted(path.name for path in out.rglob("*") if is_left_over(path))
    if hidden:
        return f"left behind: {', '.join(hidden)}"
    wrong = sorted(differing(found, *references))
    if not wrong:
        for path in place.folder.glob(f"{out.name}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return f"differs: {', '.join(wrong[:4])}" if wrong else ""


def copied(
    place: Place,
    command: Command,
    stem: str,
    numbers: Sequence[int],
    references: Sequence[dict[str, str]],
) -> dict[int, str]:
    """Return what is wrong, by operation, where copies of one run are resumed."""
    out, copies = begun(place, command, f"{stem}-copied"), place.folder / f"copies-of-{stem}"
    status, listed = place.run(place.arguments(command.start, out), out, copies=copies)
    require(status, out)
    references = [*references, contents(out, place.folder)]
    found = {}
    for number in numbers:
        # Paths in its files are those of the run that was copied.
        shutil.rmtree(out, ignore_errors=True)
        (copies / str(number)).rename(out)
        found[number] = resumed(place, command, out, references)
        print(f"{number} of {len(listed.splitlines())}: {found[number] or 'right'}", flush=True)
    shutil.rmtree(copies)
    return found


def is_left_over(path: Path) -> bool:
    """Say whether a name is one that only a running command may have."""
    return path.name.startswith(".") or path.name.endswith((".parts", ".draft", ".lock", ".tmp"))


def begun(place: Place, command: Command, name: str) -> Path:
    """Return an output folder as the command begins with."""
    out = place.folder / name
    if command.begins_with_dense:
        shutil.copytree(place.folder / "dense", out)
    return out


def require(status: int, out: Path) -> None:
    """Stop where a run that nobody killed fails."""
    if status:
        raise SystemExit(out.with_suffix(".said").read_text())


def spread(count: int, most: int | None) -> list[int]:
    """Return the numbers 1 to `count`, or so many of them, spread evenly."""
    if most is None or most >= count:
        return list(range(1, count + 1))
    return sorted({1 + round(place * (count - 1) / max(most - 1, 1)) for place in range(most)})


def differing(found: dict[str, str], *whole: dict[str, str]) -> Iterator[str]:
    """Yield the names whose values are not those of the whole runs, unless these differ."""
    for name in found.keys() | whole[0].keys():
        values = {run.get(name) for run in whole}
        if not MEASURED.search(name) and len(values) == 1 and found.get(name) not in values:
            yield name


def contents(out: Path, root: Path) -> dict[str, str]:
    """Return every value in the files of a folder, by file and place in the file."""
    values = {}
    for path in sorted(out.rglob("*")):
        if not path.is_file() or "tensorboard" in path.parts:
            continue  # A resumed run adds a file of TensorBoard.
        name = path.relative_to(out).as_posix()
        values[name] = ""
        for place, value in leaves_of(path):
            text = str(value).replace(str(out), "OUT").replace(out.name, "OUT")
            values[f"{name}:{place}"] = text
    return values


def leaves_of(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield places and values of one file; of one of an unknown kind, its digest."""
    data = path.read_bytes()
    if path.suffix == ".json":
        yield from leaves(json.loads(data))
    elif path.suffix == ".csv":
        yield from enumerate_lines(data)
    elif path.suffix == ".safetensors":
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        texts = {key: json.loads(text) for key, text in header.pop("__metadata__", {}).items()}
        yield from leaves({"tensors": header, "metadata": texts})
        yield "bytes", hashlib.sha256(data[8 + size :]).hexdigest()
    else:
        yield "digest", hashlib.sha256(data).hexdigest()


def enumerate_lines(data: bytes) -> Iterator[tuple[str, str]]:
    """Yield the lines of a text by number."""
    for number, line in enumerate(data.decode().split("\n")):
        yield str(number), line


def leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield places and values of a JSON document."""
    pairs: Any = ()
    if isinstance(value, dict):
        pairs = value.items()
    elif isinstance(value, list):
        named = all(isinstance(one, list) and one and isinstance(one[0], str) for one in value)
        pairs = [(one[0], one[1:]) for one in value] if named and value else enumerate(value)
    else:
        yield place, value
    for name, inner in pairs:
        yield from leaves(inner, f"{place}/{name}")


def keep_row(path: Path, row: dict[str, Any]) -> None:
    """Put one row into the table, in place of an earlier one of the command, made the same way."""
    from flyweight.files import write_text

    rows = [row]
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            rows = [one for one in csv.DictReader(file) if any(one[key] != row[key] for key in KEY)]
            rows.append(row)
    cells = [[str(one[name]) for name in COLUMNS] for one in rows]
    lines = [",".join(f'"{cell}"' if "," in cell else cell for cell in line) for line in cells]
    write_text(path, "\n".join([",".join(COLUMNS), *lines, ""]))


if __name__ == "__main__":
    sys.exit(main())
