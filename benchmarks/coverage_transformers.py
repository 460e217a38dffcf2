"""Networks of transformers for images, built from small configurations with random weights."""

from collections.abc import Callable, Iterator
from functools import partial

import transformers
from coverage_case import Case, Inputs
from coverage_transformers_configs import CLASSIFIERS, SIDE
from coverage_transformers_detectors import DETECTORS, Options
from coverage_transformers_inputs import images
from coverage_transformers_tasks import TASKS
from torch import nn

_SUITE = "transformers"


def cases() -> Iterator[Case]:
    """Yield the networks of the suite."""
    for name, (network, options) in CLASSIFIERS.items():
        side = 128 if name == "LeViT" else SIDE
        yield _case(name, network, options, images, side)
    for name, (network, options, inputs, side) in (DETECTORS | TASKS).items():
        yield _case(name, network, options, inputs, side)


def _case(
    name: str, network: str, options: Options, inputs: Callable[[int, int], Inputs], side: int
) -> Case:
    build = partial(_build, network, options)
    return Case(_SUITE, name, build, (1, 3, side, side), inputs=inputs)


def _build(network: str, options: Options) -> nn.Module:
    kind = getattr(transformers, network)
    made = options() if callable(options) else options
    model: nn.Module = kind(kind.config_class(**made))
    return model
