"""Small networks of our own: the ways in which people write networks by hand."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from coverage_case import Case
from coverage_idioms_blocks import (
    FRAMED,
    Framed,
    spectral_normed,
    standardised,
    weight_normed,
)
from coverage_idioms_ends import ENDS
from coverage_idioms_time import MAPS as TIME_MAPS
from coverage_idioms_time import Cells, Rows
from coverage_idioms_tokens import MAPS, TOKENS, Tokens, ViT
from coverage_idioms_whole import WHOLE
from torch import nn

_SUITE = "idioms"
_SIDE = 16

_MORE: dict[str, Callable[[], nn.Module]] = {
    **WHOLE,
    "weight standardisation": standardised,
    "weight norm, hook": partial(weight_normed, hook=True),
    "weight norm, parametrisation": partial(weight_normed, hook=False),
    "spectral norm, hook": partial(spectral_normed, hook=True),
    "spectral norm, parametrisation": partial(spectral_normed, hook=False),
    "vision transformer, resized table": ViT,
    "cell, GRU": partial(Cells, nn.GRUCell),
    "cell, LSTM": partial(Cells, nn.LSTMCell),
    "rows, LSTM": partial(Rows, nn.LSTM),
    "rows, GRU": partial(Rows, nn.GRU),
}


def cases() -> Iterator[Case]:
    """Yield the networks of the suite."""
    for name, build in _builders():
        yield _case(name, build, None)
    for name, (build, inputs) in ENDS.items():
        yield _case(name, build, inputs)


def _builders() -> Iterator[tuple[str, Callable[[], nn.Module]]]:
    for name, (block, before, after) in FRAMED.items():
        yield name, partial(_framed, block, before, after)
    for name, block in (MAPS | TIME_MAPS).items():
        yield name, partial(_framed, block, 16, 16)
    for name, block in TOKENS.items():
        yield name, partial(_tokens, block)
    yield from _MORE.items()


def _framed(block: Callable[[], nn.Module], before: int, after: int) -> nn.Module:
    return Framed(block(), before, after)


def _tokens(block: Callable[[], nn.Module]) -> nn.Module:
    return Tokens(block())


def _case(name: str, build: Callable[[], nn.Module], inputs: Any) -> Case:
    return Case(_SUITE, name, build, (2, 3, _SIDE, _SIDE), inputs=inputs, sides=(24, 32))
