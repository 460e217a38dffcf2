import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flyweight import __version__
from flyweight.cli import app, main
from flyweight.cli.main import spread_overrides

COMMANDS = (
    *("quantize", "distill"),
    *("models", "params", "train", "eval", "sensitivity", "prune"),
    *("export", "bench", "predict", "check-data", "convert-data", "report", "demo"),
    "init",
)


HEAVY = ("torch", "numpy", "pydantic", "yaml", "rich")
LATE = ("torch", "numpy", "lightning", "onnx")  # what no simple mistake waits for
SIMPLE_MISTAKES = (
    "eval -c nowhere",
    "eval -c demo_digits",
    "eval -c demo_digits -w none",
    "eval -c demo_digits -o stepz=1",
    "train -c demo_digits -o train.stepz=1",
    "train -c yolov3_mobilenet_v1_voc",
    "train -c demo_digits -o pretrain_weights=none",
    "demo -o stepz=1",
    "prune -c nowhere",
    "prune -c demo_digits -o weights=none",
    "prune -c demo_digits --budget mac=0.5",
    "prune -c demo_digits --budget macs=1.0",
    "prune -c demo_digits --budget macs=half --dry-run",
    "prune -c demo_digits --sensitivities none --max-drop 5",
    "prune -c demo_digits --max-drop 0.1 --dry-run",
    "prune -c demo_digits --budget latency_ms=3 --sensitivities none",
    "prune -c demo_digits -p a --pruned_ratios 1.5 --dry-run",
    "prune -c demo_digits -p a,b --pruned_ratios 0.5",
    "prune -c demo_digits --prune_criterion l1norm",
    "prune -c demo_digits --dry-run --flops-convention padle",
    "params -c demo_digits -w none",
    "sensitivity",
    "sensitivity -c demo_digits",
    "sensitivity -c demo_digits -w none",
    "bench",
    "bench none.onnx --threads two",
    "bench none.onnx --shape images",
    "bench --layers",
    "bench --layers -c demo_digits --threads 1,2",
    "bench --layers -c demo_digits --runtime tensorrt",
    "export -w none --runtime tensorrt",
    "convert-data nowhere --from voc --to coco",
    "convert-data . --from voc --to cocoo",
    "export -w none",
    "export --end boxes",
    "predict -w none none.png",
    "report nowhere",
)


def shell(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "flyweight", *arguments],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def test_alone_it_prints_help(flyweight):
    answer = flyweight()
    assert (answer.status, answer.err) == (0, "")
    for command in COMMANDS:
        assert f"\n  {command} " in answer.out
    assert answer == flyweight("--help") == flyweight("-h")


def test_version(flyweight):
    assert flyweight("--version").out == f"flyweight {__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_that_is_whole(flyweight, command):
    answer = flyweight(command, "--help")
    assert answer.status == 0
    assert f"Usage: flyweight {command} " in answer.out
    assert "..." not in flyweight().out.partition("Commands:")[2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["evl"], "Received 'evl'. Nearest: 'eval'. List them with: flyweight --help"),
        (["epochs", "3"], "Received 'epochs'. It is called 'train.steps' here"),
        (
            ["batch"],
            "It is called 'train.batch_size' here. Settings of the config are given as: -o",
        ),
        (
            ["prune", "-w", "a"],
            "Received '-w'. It is called 'weights' here. Settings of the config",
        ),
        (["--jsn"], "An option must be one of 'flyweight'. Received '--jsn'."),
        (["prune", "--pruned_ratio=1"], "Nearest: '--pruned"),
        (["eval"], "Missing option '-c' / '--config'. See: flyweight eval --help"),
        (["eval", "-c"], "'-c' requires an argument"),
        (["eval", "-c", "demo_digits", "-o"], "'-o' requires an argument"),
        (["eval", "-c", "demo_digits", "extra"], "unexpected extra argument"),
        (["predict", "--draw-threshold", "high", "a.png"], "'--draw-threshold'"),
        (["bench"], "There must be something to measure. Received no files."),
    ],
)
def test_mistakes_of_usage(flyweight, arguments, said):
    assert said in flyweight(*arguments).mistake


def test_overrides_after_one_o():
    assert spread_overrides(["-o", "a=1", "b.c=2", "-c", "x=y", "-o", "d=3"]) == (
        ["-o", "a=1", "-o", "b.c=2", "-c", "x=y", "-o", "d=3"]
    )
    assert spread_overrides(["-o", "bad", "a=1"]) == ["-o", "bad", "-o", "a=1"]
    assert spread_overrides(["-o", "a=1", "dir=x/cat.png"]) == ["-o", "a=1", "-o", "dir=x/cat.png"]
    assert spread_overrides(["-o", "a=1", "./dir=x/cat.png"]) == ["-o", "a=1", "./dir=x/cat.png"]
    assert spread_overrides(["--json", "-o"]) == ["--json", "-o"]


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (KeyboardInterrupt(), 130, "stopped; start again with: flyweight models"),
        (PermissionError(13, "Permission denied", "/there"), 2, "Permission denied at '/there'"),
        (OSError(28, "No space left on device"), 2, "No space left on device"),
    ],
)
def test_what_the_system_does(flyweight, monkeypatch, error, status, said):
    def fail(_):
        raise error

    monkeypatch.setattr("flyweight.cli.models.show", fail)
    answer = flyweight("models")
    assert (answer.status, answer.out) == (status, "")
    assert said in answer.err
    assert len(answer.err.splitlines()) == 1


def test_a_defect_of_ours_keeps_its_traceback(flyweight, monkeypatch):
    monkeypatch.setattr("flyweight.cli.models.show", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        flyweight("models")


def test_a_letter_from_a_process_that_prepares_pictures(flyweight, monkeypatch):
    from flyweight.errors import DataError

    wrapped = (
        "Caught DataError in DataLoader worker process 0.\nOriginal Traceback (most recent call "
        'last):\n  File "a.py", line 1\nflyweight.errors.DataError: An image must decode.\n'
    )

    def fail(_):
        raise DataError(wrapped)

    monkeypatch.setattr("flyweight.cli.models.show", fail)
    assert flyweight("models").mistake == "error: An image must decode."


def test_the_reader_goes_away():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "flyweight", "--help"],
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_full_disk_at_the_end_of_a_pipe():
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        done = subprocess.run(
            [sys.executable, "-m", "flyweight", "--help"],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.decode().count("\n") == 1
    assert b"No space left on device" in done.stderr


def test_names_that_are_no_text(tmp_path):
    done = shell("models", cwd=tmp_path, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    name = os.fsdecode(b"caf\xe9.png")
    done = shell("predict", "-w", "none", name, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def test_an_error_is_one_line_without_control_characters(flyweight):
    done = flyweight("eval", "-c", "\x1b]0;owned\x07\u202e" + "x" * 5000)
    assert done.status == 2
    assert done.err.count("\n") == 1
    assert "\x1b" not in done.err
    assert r"\x1b]0;owned\x07\u202e" in done.err
    assert len(done.err) < 2100


@pytest.mark.parametrize("option", ["-c", "-w"])
def test_a_pipe_is_no_file_and_nobody_waits_for_it(tmp_path, option):
    os.mkfifo(tmp_path / "pipe.yaml")
    done = shell("eval", option, "pipe.yaml", cwd=tmp_path, timeout=60)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from flyweight.cli.main import run; run(['--help']); "
        f"sys.exit(' '.join(m for m in {HEAVY} if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


def test_simple_mistakes_are_told_before_anything_heavy_loads(tmp_path):
    code = (
        "import sys; from flyweight.cli.main import run; "
        "print([run(line.split()) for line in sys.argv[1:]]); "
        f"print([name for name in {LATE} if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, *SIMPLE_MISTAKES]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stdout.splitlines() == [str([2] * len(SIMPLE_MISTAKES)), "[]"], done.stderr


def test_torch_is_imported_after_the_process_is_prepared():
    code = (
        "import sys; from flyweight.cli import main as entry; "
        "module = sys.modules[entry.__module__]; prepare = module.prepare_process; "
        "module.prepare_process = lambda: print('torch' in sys.modules, prepare()); "
        "entry('params -c demo_digits -o width=0.1 input_size=64'.split())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("False None\n")
    assert "prunable" in done.stdout


def test_letters_name_commands_that_exist():
    source = Path(__file__).resolve().parents[2] / "src"
    pattern = re.compile(r"(?:`|: |\bwith )flyweight ([a-z]+(?:-[a-z]+)*)")
    named = {
        name for path in source.rglob("*.py") for name in pattern.findall(path.read_text("utf-8"))
    }
    assert named >= {"models", "params", "demo"}
    assert named <= set(COMMANDS)


def test_main_leaves_with_the_status(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["flyweight", "nope"])
    with pytest.raises(SystemExit) as ending:
        main()
    assert ending.value.code == 2
    assert app.app.info.name == "flyweight"


THREADS = """
import os, sys
for name, value in dict(item.split("=") for item in sys.argv[1:]).items():
    os.environ[name] = value
from flyweight import processors
processors.thread_count = lambda: 3
from flyweight.cli.main import run
run(["--version"])
names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")
print([os.environ.get(name) for name in names])
"""


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ((), ["PASSIVE", "3000", "3"]),
        (("GOMP_SPINCOUNT=7",), ["PASSIVE", "7", "3"]),
        (("OMP_WAIT_POLICY=ACTIVE", "OMP_NUM_THREADS=5"), ["ACTIVE", None, "5"]),
    ],
)
def test_threads_wait_without_spinning_unless_the_user_says_otherwise(given, found):
    own = ("OMP_", "GOMP_")
    plain = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    done = subprocess.run(
        [sys.executable, "-c", THREADS, *given],
        capture_output=True,
        text=True,
        check=True,
        env=plain,
    )
    assert done.stdout.splitlines()[-1] == str(found)


def test_torch_that_is_loaded_keeps_its_threads(flyweight, monkeypatch):
    import torch

    assert torch
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    flyweight("--version")
    assert "OMP_WAIT_POLICY" not in os.environ


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_signals_that_stop_a_command(flyweight, monkeypatch, name):
    def stop(_):
        os.kill(os.getpid(), getattr(signal, name))

    monkeypatch.setattr("flyweight.cli.models.show", stop)
    answer = flyweight("models")
    assert (answer.status, answer.out) == (130, "")
    assert answer.err == "stopped; start again with: flyweight models\n"
