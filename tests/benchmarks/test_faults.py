"""Kills at some operations on files: the benchmark tries all of them."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KILLS = {("convert-data",): 12, ("train",): 6, ("convert-data", "--copies"): 2}

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not any(map(shutil.which, ("cc", "gcc", "clang"))),
    reason="needs Linux and a C compiler",
)


@pytest.mark.slow
@pytest.mark.parametrize("words", KILLS)
def test_commands_that_are_killed_are_resumed_to_the_same_result(words, tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, str(ROOT / "benchmarks" / "faults.py"), "--only", *words),
            *("--most", str(KILLS[words]), "--jobs", "2", "--results", str(tmp_path / "rows.csv")),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with (tmp_path / "rows.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (int(row["kills"]), int(row["right"])) == (KILLS[words], KILLS[words])
    assert int(row["operations"]) > 50
