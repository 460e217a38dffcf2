"""Layers grouped into blocks by their names, so that 18 or 160 of them stay readable."""

from collections.abc import Sequence
from dataclasses import dataclass

from flyweight.report.rows import Width

_COMFORTABLE, _CRUMBS = 12, 3


@dataclass(frozen=True)
class Layer:
    """A layer under the short name that is left when what its neighbours share is dropped.

    Attributes:
        name: What to show.
        width: The layer.
    """

    name: str
    width: Width


@dataclass(frozen=True)
class Block:
    """Layers that share the beginning of their names.

    Attributes:
        name: That beginning; empty if there is none.
        layers: In the order of the network.
    """

    name: str
    layers: tuple[Layer, ...]


def blocks_of(widths: Sequence[Width]) -> tuple[Block, ...]:
    """Return `widths` grouped by the dots of their names, about a dozen to a block.

    A group is split at its next dot as long as it holds more than a dozen layers and the parts are
    not crumbs (fewer than three layers each, on average). The ending that all names share, such as
    ".conv.weight", is not repeated.
    """
    if not widths:
        return ()
    ending = _shared_ending([width.name.split(".") for width in widths])
    parts = [(width, tuple(width.name.split(".")[: -ending or None])) for width in widths]
    return tuple(_block(members, depth) for members, depth in _split(parts, 0))


_Member = tuple[Width, tuple[str, ...]]


def _split(members: list[_Member], depth: int) -> list[tuple[list[_Member], int]]:
    if len(members) <= _COMFORTABLE:
        return [(members, depth)]
    children: dict[str, list[_Member]] = {}
    for member in members:
        children.setdefault(member[1][depth] if depth < len(member[1]) - 1 else "", []).append(
            member
        )
    if list(children) == [""] or len(members) < _CRUMBS * len(children):
        return [(members, depth)]
    return [
        part
        for step, child in children.items()
        for part in ([(child, depth)] if step == "" else _split(child, depth + 1))
    ]


def _block(members: list[_Member], depth: int) -> Block:
    # Names may share more than the split needed: a block of one branch starts where they differ.
    while (
        all(len(path) > depth + 1 for _, path in members)
        and len({p[depth] for _, p in members}) == 1
    ):
        depth += 1
    layers = tuple(Layer(".".join(path[depth:]), width) for width, path in members)
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
