"""Which ratios of a curve fast mode looks at: few at first, then where the curve bends."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from flyweight.sensitivity.scanned_cuts import Cut

_BEND = 0.2
"""A step between neighbours, as a share of the baseline, that is looked into."""


def by_layer(cuts: Sequence[Cut]) -> dict[str, list[float]]:
    """Return the ratios of every layer, rising."""
    found: dict[str, list[float]] = {}
    for layer, ratio in sorted(cuts, key=lambda cut: cut[1]):
        found.setdefault(layer, []).append(ratio)
    return {layer: found[layer] for layer in dict.fromkeys(layer for layer, _ in cuts)}


def first_probes(cuts: Sequence[Cut], prior: Mapping[str, float] | None = None) -> list[Cut]:
    """Return the cuts to begin with: every layer's largest, and the middle one of most.

    Args:
        cuts: All that may be looked at.
        prior: Layer to what its channels are guessed to be worth. The half of the layers that is
            worth least begins with its largest cut alone, which is likely to be harmless; layers
            are tried from the least worth on.
    """
    layers = by_layer(cuts)
    ranked = sorted(layers, key=lambda layer: prior[layer]) if prior else []
    hopeful = set(ranked[: len(ranked) // 2])
    found = []
    for layer in ranked or layers:
        ratios = layers[layer]
        middle = [] if layer in hopeful else [ratios[(len(ratios) - 1) // 2]]
        found += [(layer, ratio) for ratio in dict.fromkeys([*middle, ratios[-1]])]
    return found


def next_probes(cuts: Sequence[Cut], losses: Mapping[Cut, float], max_drop: float) -> list[Cut]:
    """Return the cuts to look at next; none when the curves are known well enough.

    Between two neighbours that were looked at, one more ratio is tried if the curve crosses
    `max_drop` there, so that in the end the two ratios around the crossing are known, or if it
    rises by more than a fifth of the baseline.

    Args:
        cuts: All that may be looked at.
        losses: What the ones that were looked at cost, as shares of the baseline.
        max_drop: What a layer may cost.
    """
    found: list[Cut] = []
    for layer, ratios in by_layer(cuts).items():
        known = {0.0: 0.0} | {r: losses[layer, r] for r in ratios if (layer, r) in losses}
        highest, rising = 0.0, list[tuple[float, float]]()
        for ratio in sorted(known):
            highest = max(highest, known[ratio])
            rising.append((ratio, highest))
        for (low, cheap), (high, dear) in pairwise(rising):
            between = [ratio for ratio in ratios if low < ratio < high]
            if between and (cheap <= max_drop < dear or dear - cheap > _BEND):
                found.append((layer, between[len(between) // 2]))
    return found
