"""Probes of a fast scan: few ratios of every curve first, then those where the curve bends."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from flyweight.sensitivity.scanned_cuts import LayerCut

_BEND = 0.2
"""A rise between two measured neighbours, as a share of the baseline, from which one more ratio
between them is measured."""


def by_layer(cuts: Sequence[LayerCut]) -> dict[str, list[float]]:
    """Return the ratios of every layer in rising order."""
    found: dict[str, list[float]] = {}
    for layer, ratio in sorted(cuts, key=lambda cut: cut[1]):
        found.setdefault(layer, []).append(ratio)
    return {layer: found[layer] for layer in dict.fromkeys(layer for layer, _ in cuts)}


def first_probes(
    cuts: Sequence[LayerCut], prior: Mapping[str, float] | None = None
) -> list[LayerCut]:
    """Return the first cuts to measure: every layer's largest, and the middle one of most.

    Args:
        cuts: All cuts that may be measured.
        prior: Estimated importance by layer. Layers come in rising order of importance. The less
            important half begins with its largest cut alone, which is likely to be harmless.
    """
    layers = by_layer(cuts)
    ranked = sorted(layers, key=lambda layer: prior[layer]) if prior else []
    unimportant = set(ranked[: len(ranked) // 2])
    found = []
    for layer in ranked or layers:
        ratios = layers[layer]
        middle = [] if layer in unimportant else [ratios[(len(ratios) - 1) // 2]]
        found += [(layer, ratio) for ratio in dict.fromkeys([*middle, ratios[-1]])]
    return found


def next_probes(
    cuts: Sequence[LayerCut], losses: Mapping[LayerCut, float], max_drop: float
) -> list[LayerCut]:
    """Return the next cuts to measure; none when the curves are known precisely enough.

    Between two measured neighbours one more ratio is measured if the curve crosses `max_drop`
    there, so that in the end the two ratios around the crossing are known, or if the curve rises by
    more than a fifth of the baseline.

    Args:
        cuts: All cuts that may be measured.
        losses: Losses of the measured cuts, as shares of the baseline.
        max_drop: The loss that is allowed for a layer.
    """
    found: list[LayerCut] = []
    for layer, ratios in by_layer(cuts).items():
        known = {0.0: 0.0} | {r: losses[layer, r] for r in ratios if (layer, r) in losses}
        highest, rising = 0.0, list[tuple[float, float]]()
        for ratio in sorted(known):
            highest = max(highest, known[ratio])
            rising.append((ratio, highest))
        for (low, before), (high, after) in pairwise(rising):
            between = [ratio for ratio in ratios if low < ratio < high]
            if between and (before <= max_drop < after or after - before > _BEND):
                found.append((layer, between[len(between) // 2]))
    return found
