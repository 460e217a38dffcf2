"""Batches of images without labels, for scans and repair on unlabelled images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from flyweight.config.preprocessing import Preprocessing
from flyweight.data.images import prepare, read_image


@dataclass(frozen=True)
class ImageBatches:
    """Image files as batches of network inputs, which can be iterated repeatedly.

    Attributes:
        paths: The images, in order.
        preprocessing: Preprocessing of the network.
        batch_size: Images per batch; the last batch may be smaller.
    """

    paths: Sequence[Path]
    preprocessing: Preprocessing
    batch_size: int

    def __len__(self) -> int:
        return -(-len(self.paths) // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        """Decode and yield `(n, channels, height, width)`, batch by batch.

        Raises:
            DataError: An image does not decode.
        """
        for start in range(0, len(self.paths), self.batch_size):
            share = self.paths[start : start + self.batch_size]
            yield torch.stack([prepare(read_image(path), self.preprocessing) for path in share])
