"""Images without labels, for what needs none."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from flyweight.config.preprocessing import Preprocessing
from flyweight.data.images import prepare, read_image


@dataclass(frozen=True)
class ImageBatches:
    """Files as batches of a network's input; can be gone over again and again.

    Attributes:
        paths: The images, in order.
        preprocessing: What the network takes.
        batch_size: Images in each batch but perhaps the last.
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
