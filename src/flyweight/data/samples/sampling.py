"""Endless seeded stream of training samples, with the random numbers of each sample.

All randomness is a function of integers: the order depends on (seed, epoch), the size of a batch on
(seed, step), the augmentation of a sample on (seed, epoch, index). So the samples of a step depend
neither on the number of workers or devices nor on where the run was resumed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Sampler

from flyweight.errors import ConfigError, counted

ORDER, SHAPE, SAMPLE, WORKERS = range(4)  # First part of a key: its use.


def key(*parts: int) -> int:
    """Return a well-mixed 63-bit number that depends on all `parts`, none of them negative."""
    state = np.random.SeedSequence(parts).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


@contextmanager
def keyed_random(*parts: int) -> Iterator[None]:
    """Seed the CPU generator of torch by `parts` inside the block and restore it afterwards."""
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also seed the accelerators, whose generators are not forked.
        torch.default_generator.manual_seed(key(*parts))
        yield


class SampleRequest(NamedTuple):
    """One sample of one batch.

    Attributes:
        image: Index of the image in the set.
        epoch: Epoch of the stream, from 0.
        size: Height and width of its batch in pixels.
        method: Index of the interpolation of its batch.
    """

    image: int
    epoch: int
    size: tuple[int, int]
    method: int


@dataclass(frozen=True)
class Stream:
    """Range of steps of the endless stream, and the share of this device.

    Attributes:
        batch_size: Images per step and device.
        steps: The stream ends before this step, counted from the beginning of training.
        start_step: The first step.
        seed: Another seed gives another stream.
        rank: Index of this device.
        world_size: Number of devices. Each gets its own slice of every global batch.
    """

    batch_size: int
    steps: int
    start_step: int = 0
    seed: int = 0
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        lowest = {
            "batch_size": 1,
            "steps": 0,
            "start_step": 0,
            "seed": 0,
            "rank": 0,
            "world_size": 1,
        }
        for name, least in lowest.items():
            if getattr(self, name) < least:
                raise ConfigError(
                    f"{name} must be at least {least}. Received {getattr(self, name)}. Raise it."
                )
        if self.rank >= self.world_size:
            raise ConfigError(
                f"rank must be below world_size. Received {self.rank} of {self.world_size}. "
                "Count devices from 0."
            )

    def batches_per_epoch(self, count: int) -> int:
        """Return the number of steps for `count` images; the remainder at the end is dropped.

        Raises:
            ConfigError: One step takes more images than there are.
        """
        together = self.batch_size * self.world_size
        if together > count:
            raise ConfigError(
                f"A step must not take more images than the training set has, {count}. Received "
                f"batch_size {self.batch_size} on {counted(self.world_size, 'device')}. "
                "Lower batch_size."
            )
        return count // together


class StepSampler(Sampler[list[SampleRequest]]):
    """Yields the samples of each step of a stream.

    Args:
        stream: The steps.
        count: Number of images in the set.
        sizes: Heights and widths from which the size of a batch is chosen.
        methods: Number of interpolations from which one is chosen for a batch.
    """

    def __init__(
        self, stream: Stream, count: int, sizes: tuple[tuple[int, int], ...], methods: int
    ) -> None:
        self._stream = stream
        self._count = count
        self._sizes = sizes
        self._methods = methods
        self._per_epoch = stream.batches_per_epoch(count)

    def __len__(self) -> int:
        return max(0, self._stream.steps - self._stream.start_step)

    def __iter__(self) -> Iterator[list[SampleRequest]]:
        for step in range(self._stream.start_step, self._stream.steps):
            yield self._requests(step)

    def _requests(self, step: int) -> list[SampleRequest]:
        stream = self._stream
        epoch, position = divmod(step, self._per_epoch)
        first = (position * stream.world_size + stream.rank) * stream.batch_size
        indices = _order(stream.seed, epoch, self._count)[first : first + stream.batch_size]
        choice = np.random.default_rng(key(SHAPE, stream.seed, step))
        size = self._sizes[choice.integers(len(self._sizes))]
        method = int(choice.integers(self._methods))
        return [SampleRequest(int(index), epoch, size, method) for index in indices]


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(key(ORDER, seed, epoch)).permutation(count)
