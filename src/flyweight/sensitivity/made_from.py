"""Record of what the numbers of a scan depend on, and comparison with what it is used for.

A scan records digests of the structure of the network (`graph`), of its weights and of the data,
and as JSON text what a person can read: `network` has the architecture and its arguments, and
`preprocessing` says how an image becomes the network's input. Version 0.1.0 recorded the digests
alone.
"""

import json
from collections.abc import Mapping
from typing import Any

from torch import nn

from flyweight.digests import digest_of_tensors, digest_of_value
from flyweight.graph.model_graph import ModelGraph
from flyweight.graph.stored import held_tensors
from flyweight.origin import Origin, origin_of
from flyweight.untrusted.json_values import parse_json

_SHOWN = 12
"""Digits of a digest in a message."""


def facts_of(graph: ModelGraph, model: nn.Module) -> dict[str, str]:
    """Return what identifies a network: `graph`, and `weights` and `network` where it has them.

    Args:
        graph: Of the network.
        model: The network.
    """
    tensors = [tensor for _, tensor, _ in held_tensors(model)]
    facts = {"graph": graph.fingerprint}
    if not any(tensor.is_meta for tensor in tensors):
        facts["weights"] = digest_of_tensors(tensors)
    origin = origin_of(model)
    if origin is not None:
        facts["network"] = network_text(origin)
    return facts


def network_text(origin: Origin) -> str:
    """Return the architecture, its arguments and its cuts as JSON text.

    Example:
        >>> network_text(Origin("tiny", {"width": 0.5}))
        '{"model": "tiny", "width": 0.5}'
    """
    cuts = {"pruned": digest_of_value(list(origin.plans))[:_SHOWN]} if origin.plans else {}
    values = {"model": origin.architecture, **origin.arguments, **cuts}
    return json.dumps(values, sort_keys=True)


def differences_between(found: Mapping[str, str], now: Mapping[str, str]) -> tuple[str, ...]:
    """Return as text what differs between what a scan was made of and what it is used for.

    What one of the two does not know is not compared. Networks of equal structure are equal,
    whatever the spelling of their arguments; and equal weights are those of one network, even if
    another version of flyweight traced it.

    Args:
        found: What the scan recorded.
        now: The same of what it is used for; `weights` and `data` where they are known.

    Example:
        >>> differences_between({"data": "1"}, {"data": "2", "weights": "3"})
        ('data (1, here 2)',)
    """
    named = list[str]()
    both = {key for key in found.keys() & now.keys() if found[key] and now[key]}
    differing = {key for key in both if found[key] != now[key]}
    if not ("graph" in both - differing or "weights" in both - differing):
        arguments = _named("network", found, now) if "network" in differing else []
        if "graph" in differing and not arguments:
            arguments = [_short("structure", found["graph"], now["graph"])]
        named += arguments
    if "weights" in differing:
        named.append(_short("weights", found["weights"], now["weights"]))
    if "preprocessing" in differing:
        named += _named("preprocessing", found, now)
    if "data" in differing:
        named.append(_short("data", found["data"], now["data"]))
    return tuple(named)


def _short(name: str, was: str, now: str) -> str:
    return f"{name} ({was[:_SHOWN]}, here {now[:_SHOWN]})"


def _named(key: str, found: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return what differs between two mappings in JSON text, key by key."""
    one, other = mapping_of(found[key]), mapping_of(now[key])
    if one is None or other is None:
        return [_short(key, found[key], now[key])]
    names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    rows = [(name, one.get(name, "none"), other.get(name, "none")) for name in names]
    side = "input " if key == "preprocessing" else ""  # A network may have a width, too.
    return [f"{side}{name} ({was}, here {now})" for name, was, now in rows]


def mapping_of(text: str) -> dict[str, Any] | None:
    """Return the mapping in a JSON text; None where there is none."""
    try:
        value = parse_json(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
