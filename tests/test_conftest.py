"""How the tests run: one thread per process, in the processes that tests start, too."""

import os
import subprocess
import sys

import torch


def test_this_process_and_its_children_use_the_given_number_of_threads():
    wanted = int(os.environ["OMP_NUM_THREADS"])  # Set by tests/conftest.py: 1 by default.
    assert torch.get_num_threads() == wanted
    code = "import torch; print(torch.get_num_threads())"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(child.stdout) == wanted
