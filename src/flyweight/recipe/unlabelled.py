"""Pictures without labels, for what needs none."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from flyweight.data.pictures import prepare, read_picture
from flyweight.data.preprocess import Preprocessing


@dataclass(frozen=True)
class PictureBatches:
    """Files as batches of a network's input; can be gone over again and again.

    Attributes:
        paths: The pictures, in order.
        preprocessing: What the network takes.
        batch_size: Pictures in each batch but perhaps the last.
    """

    paths: Sequence[Path]
    preprocessing: Preprocessing
    batch_size: int

    def __len__(self) -> int:
        return -(-len(self.paths) // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        """Decode and yield `(n, channels, height, width)`, batch by batch.

        Raises:
            DataError: A picture does not decode.
        """
        for start in range(0, len(self.paths), self.batch_size):
            share = self.paths[start : start + self.batch_size]
            yield torch.stack([prepare(read_picture(path), self.preprocessing) for path in share])
