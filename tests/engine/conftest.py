"""What the tests of the engine share."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def toy():
    """The module `toy.py` beside this file."""
    path = Path(__file__).with_name("toy.py")
    spec = importlib.util.spec_from_file_location("flyweight_engine_toy", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
