"""Random inputs for files that are measured."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.runtimes.protocol import TensorInfo


def random_inputs(
    inputs: Sequence[TensorInfo],
    shapes: Mapping[str, Sequence[int]] | None = None,
    *,
    seed: int = 0,
) -> dict[str, NDArray[Any]]:
    """Return standard normal values for every input; small non-negative ones for whole numbers.

    Args:
        inputs: The inputs of a file.
        shapes: Input name to shape; by default the shapes in the file, which must be static.
        seed: Of the values.
    """
    generator = np.random.default_rng(seed)
    arrays: dict[str, NDArray[Any]] = {}
    for item in inputs:
        shape: Any = item.shape if shapes is None else shapes[item.name]
        values = generator.standard_normal(shape)
        if not item.type.startswith("float"):
            values = abs(values)  # may be indices or bytes
        arrays[item.name] = values.astype(item.type)
    return arrays
