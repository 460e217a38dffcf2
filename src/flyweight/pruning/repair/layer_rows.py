"""Rows of least-squares problems: samples of a layer's inputs and outputs.

A convolution is a linear layer on patches. Positions are drawn first and only their patches are
taken, because all patches of an image together are several times as large as the image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flyweight.pruning.repair.layers import Consumer
from flyweight.replay.lockstep import Read

CHECKED = 5
"""One of this many rows of every batch is used to evaluate a fit, the others to fit."""


class Draw:
    """Draws the positions of images that are used as rows, equal for inputs and outputs."""

    def __init__(self, names: Sequence[str], per_image: int, seed: int) -> None:
        self._place = {name: place for place, name in enumerate(names)}
        self.per_image, self._seed = per_image, seed

    def _positions(self, name: str, batch: int, images: int, count: int) -> Tensor:
        """Return distinct positions out of `count`, `(images, rows per image)`."""
        if count <= self.per_image:
            return torch.arange(count).expand(images, count)
        generator = torch.Generator().manual_seed(
            (self._seed * 8191 + self._place[name]) * 131_071 + batch
        )
        return torch.rand(images, count, generator=generator).topk(self.per_image, 1).indices

    def outputs(self, consumer: Consumer, batch: int, read: Read) -> Tensor:
        """Return samples of the dense layer's result, `(rows, outputs that stay)`."""
        axis = 1 if read.op == "conv2d" else -1
        rows = self.sample(consumer.name, batch, read.result, axis)
        return rows[:, list(consumer.made)].contiguous()

    def sample(self, name: str, batch: int, values: Tensor, axis: int) -> Tensor:
        """Return samples of values whose channels lie on `axis`, `(rows, channels)`."""
        flat = _channels_second(values.movedim(axis, -1))
        places = self._positions(name, batch, flat.shape[0], flat.shape[2]).to(flat.device)
        drawn = flat.gather(2, places[:, None].expand(-1, flat.shape[1], -1))
        return drawn.transpose(1, 2).flatten(0, 1)

    def inputs(self, name: str, batch: int, arguments: Mapping[str, Any]) -> Tensor:
        """Return samples of the pruned layer's input, `(rows, inputs)`, or of its patches."""
        if "stride" not in arguments:
            return self.sample(name, batch, arguments["input"], -1)
        window = Window.of(arguments)
        padded = nn.functional.pad(arguments["input"], window.padding)
        height, width = window.outputs(padded)
        places = self._positions(name, batch, padded.shape[0], height * width)
        return window.patches(padded, places.to(padded.device), width)


@dataclass(frozen=True)
class Window:
    """The geometry of a convolution.

    Attributes:
        kernel: Rows and columns.
        stride: Rows and columns from one position to the next.
        dilation: Rows and columns from one tap to the next.
        padding: Left, right, top, bottom, as `functional.pad` takes them.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int, int, int]

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> "Window":
        """Read the arguments of `conv2d`."""
        kernel = (int(arguments["weight"].shape[2]), int(arguments["weight"].shape[3]))
        dilation = _pair(arguments["dilation"])
        given = arguments["padding"]
        if isinstance(given, str):
            spans = [tap * (size - 1) for tap, size in zip(dilation, kernel, strict=True)]
            before = [span // 2 if given == "same" else 0 for span in spans]
            after = [span - span // 2 if given == "same" else 0 for span in spans]
        else:
            before = after = list(_pair(given))
        padding = (before[1], after[1], before[0], after[0])
        return cls(kernel, _pair(arguments["stride"]), dilation, padding)

    def outputs(self, padded: Tensor) -> tuple[int, int]:
        """Return rows and columns of the result for a padded input."""
        sizes = zip(padded.shape[2:], self.kernel, self.stride, self.dilation, strict=True)
        height, width = ((size - tap * (k - 1) - 1) // step + 1 for size, k, step, tap in sizes)
        return height, width

    def patches(self, padded: Tensor, places: Tensor, width: int) -> Tensor:
        """Return `(images * positions, channels * taps)` at flat output `places`."""
        rows = torch.arange(self.kernel[0], device=places.device) * self.dilation[0]
        columns = torch.arange(self.kernel[1], device=places.device) * self.dilation[1]
        taps = (rows[:, None] * padded.shape[3] + columns).flatten()
        corner = (places // width) * (self.stride[0] * padded.shape[3])
        corner = corner + (places % width) * self.stride[1]
        index = (corner[:, :, None] + taps).flatten(1)
        flat = padded.flatten(2)
        drawn = flat.gather(2, index[:, None].expand(-1, flat.shape[1], -1))
        parts = drawn.reshape(*drawn.shape[:2], places.shape[1], len(taps))
        return parts.transpose(1, 2).reshape(places.numel(), -1)


def _channels_second(rows: Tensor) -> Tensor:
    """Return `(images, channels, positions)` from `(images, ..., channels)`."""
    return rows.reshape(rows.shape[0], -1, rows.shape[-1]).transpose(1, 2)


def _pair(value: Any) -> tuple[int, int]:
    values = [int(item) for item in value] if isinstance(value, (list, tuple)) else [int(value)]
    return values[0], values[-1]
