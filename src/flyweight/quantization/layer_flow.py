"""Flow between layers: which layers make what a layer reads, through everything that lies between.

Where two layers that follow each other have different precisions, a runtime converts what flows.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import prod

from flyweight.quantization.sites import RecordedSites

_NONE: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Flow:
    """What one layer hands to another.

    Attributes:
        source: Operation of the layer before.
        target: Operation of the layer after.
        elements: Values that the layer after reads, for one image; where several layers make them
            together, by a sum for example, each has an equal share.
    """

    source: str
    target: str
    elements: float


def makers_of(recorded: RecordedSites, layers: Collection[str]) -> Mapping[int, frozenset[str]]:
    """Return the nearest layers before every tensor, by the tensor's number.

    Args:
        recorded: From `sites.record_sites`.
        layers: Operations that count as layers.
    """
    found: dict[int, frozenset[str]] = {}
    for site in recorded.sites:
        own = frozenset(name for name in site.operations if name in layers)
        read = _NONE.union(*(found.get(number, _NONE) for number in site.reads))
        found |= dict.fromkeys(site.makes, own or read)
    return found


def flows_between(recorded: RecordedSites, layers: Collection[str]) -> tuple[Flow, ...]:
    """Return what flows between layers, in the order of execution.

    Args:
        recorded: From `sites.record_sites`.
        layers: Operations that count as layers.
    """
    makers = makers_of(recorded, layers)
    found = []
    for site in recorded.sites:
        for target in (name for name in site.operations if name in layers):
            data = next(iter(site.calls[0].reads), None)
            sources = makers.get(data, _NONE) if data is not None else _NONE
            size = _elements(site.calls[0], data)
            found += [Flow(one, target, size / len(sources)) for one in sorted(sources)]
    return tuple(found)


def _elements(call: object, number: int | None) -> float:
    values = getattr(call, "arguments", {}).values()
    shapes = [one.shape for one in values if getattr(one, "number", None) == number]
    return float(prod(shapes[0])) if shapes else 0.0
