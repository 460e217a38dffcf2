"""Blocks of layers, grouped by name, so that a list of 18 or 160 layers is readable."""

from collections.abc import Sequence
from dataclasses import dataclass

from flyweight.report.rows import Width

_BLOCK_SIZE, _SMALLEST_PART = 12, 3


@dataclass(frozen=True)
class BlockLayer:
    """A layer and its short name: without the parts that all layers of the block share.

    Attributes:
        name: The short name.
        width: The layer.
    """

    name: str
    width: Width


@dataclass(frozen=True)
class Block:
    """Layers that share the beginning of their names.

    Attributes:
        name: The common beginning; empty if there is none.
        layers: In the order of the network.
    """

    name: str
    layers: tuple[BlockLayer, ...]


def blocks_of(widths: Sequence[Width]) -> tuple[Block, ...]:
    """Return `widths` grouped by the dots of their names, about a dozen to a block.

    A block of more than a dozen layers is split at the next dot of the names, unless the parts
    would have fewer than three layers each on average. The ending that all names share, such as
    ".conv.weight", is left out.
    """
    if not widths:
        return ()
    ending = _shared_ending([width.name.split(".") for width in widths])
    parts = [(width, tuple(width.name.split(".")[: -ending or None])) for width in widths]
    return tuple(_block(members, depth) for members, depth in _split(parts, 0))


_Member = tuple[Width, tuple[str, ...]]


def _split(members: list[_Member], depth: int) -> list[tuple[list[_Member], int]]:
    if len(members) <= _BLOCK_SIZE:
        return [(members, depth)]
    children: dict[str, list[_Member]] = {}
    for member in members:
        children.setdefault(member[1][depth] if depth < len(member[1]) - 1 else "", []).append(
            member
        )
    if list(children) == [""] or len(members) < _SMALLEST_PART * len(children):
        return [(members, depth)]
    return [
        part
        for step, child in children.items()
        for part in ([(child, depth)] if step == "" else _split(child, depth + 1))
    ]


def _block(members: list[_Member], depth: int) -> Block:
    # Names may share more parts than the split used: short names begin where the names differ.
    while (
        all(len(path) > depth + 1 for _, path in members)
        and len({p[depth] for _, p in members}) == 1
    ):
        depth += 1
    layers = tuple(BlockLayer(".".join(path[depth:]), width) for width, path in members)
    return Block(".".join(members[0][1][:depth]), layers)


def _shared_ending(names: list[list[str]]) -> int:
    """Return how many last parts all names share, leaving every name at least one part."""
    longest = min((len(name) for name in names), default=1) - 1
    if len(names) < 2:
        return min(1, longest) if names and names[0][-1] == "weight" else 0
    shared = 0
    while shared < longest and len({name[-shared - 1] for name in names}) == 1:
        shared += 1
    return shared
