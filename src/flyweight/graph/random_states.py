"""Random numbers of a run apart from those of the program around it."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def own_random_numbers(seed: int | None = None) -> Iterator[None]:
    """Give torch, NumPy and Python their states back afterwards, as networks draw from all three.

    Args:
        seed: What to start from; None continues from the present states.
    """
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            if seed is not None:
                random.seed(seed)
                np.random.seed(seed)
                torch.default_generator.manual_seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
