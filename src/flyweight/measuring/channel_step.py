"""Channel step: the multiple of channels that is fast on a runtime, found by timing.

Convolution kernels compute blocks of channels (8 with AVX2, 16 with AVX-512), and a partly filled
block costs as much as a full one. So a number of channels is fast if it costs no more per channel
than the neighbouring multiples of a coarser step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from flyweight.graph.cost import Geometry
from flyweight.measuring.layer_timing import Timer
from flyweight.measuring.timed_layers import TimedLayer

STEPS = (1, 4, 8, 16, 32)
TOLERANCE = 0.10
# Numbers of channels that are multiples of a step and of no coarser one.
_COUNTS = {1: (33, 41, 53), 4: (36, 44, 52, 60), 8: (40, 56, 72, 88), 16: (48, 80, 112), 32: (96,)}
_COARSEST = (32, 64, 128)
_MOST_ROWS = 40  # blocks of channels do not depend on the image's size, but the time does


@dataclass(frozen=True)
class FoundStep:
    """The channel step and the measurement that it follows from.

    Attributes:
        step: Multiples of it are fast.
        excess: For each step, the cost per channel of its multiples, relative to the neighbouring
            multiples of the next coarser step; 0.3 is 30 % more. Only multiples of no coarser step
            count.
    """

    step: int
    excess: Mapping[int, float]

    def __str__(self) -> str:
        shares = ", ".join(f"{step}: {100 * more:+.0f} %" for step, more in self.excess.items())
        return f"fast channel step {self.step} (a channel at multiples of {shares})"


def find_step(layers: Sequence[TimedLayer], timer: Timer) -> FoundStep:
    """Time one layer of each kind at many widths and return the channel step.

    It is the smallest step whose excess is at most `TOLERANCE`, as is that of every coarser step.
    """
    ratios: dict[int, list[float]] = {step: [] for step in STEPS}
    for geometry in _representatives(layers):
        counts = sorted({*_COARSEST, *(c for found in _COUNTS.values() for c in found)})
        times = timer(geometry, [(count, count) for count in counts])
        power = 1 if geometry.groups == 0 else 2
        each = {c: time / c**power for c, time in zip(counts, times, strict=True)}
        for step, coarser in zip(STEPS, (*STEPS[1:], 2 * STEPS[-1]), strict=True):
            ratios[step] += [_excess(each, count, coarser) for count in _COUNTS[step]]
    excess = {step: round(median(found), 3) if found else 0.0 for step, found in ratios.items()}
    chosen = STEPS[-1]
    for step in reversed(STEPS):
        if excess[step] > TOLERANCE:
            break
        chosen = step
    return FoundStep(chosen, excess)


def _excess(each: Mapping[int, float], count: int, coarser: int) -> float:
    """Return the cost of a channel relative to the mean at the neighbouring coarser multiples."""
    below = count // coarser * coarser
    neighbours = (each[below] + each[below + coarser]) / 2
    return each[count] / neighbours - 1


def _representatives(layers: Sequence[TimedLayer]) -> list[Geometry]:
    """Return a depthwise, a pointwise and another layer, of moderate sizes."""
    found: dict[str, Geometry] = {}
    for layer in sorted(layers, key=lambda layer: layer.geometry.size, reverse=True):
        geometry = layer.geometry
        if geometry.groups > 1 or not any(layer.free):
            continue
        wide = max(geometry.kernel, default=1) > 1
        kind = "depthwise" if layer.depthwise else f"{geometry.kind} {wide}"
        small = tuple(min(size, _MOST_ROWS) for size in geometry.size)
        found.setdefault(kind, replace(geometry, size=small, images=_few(geometry)))
    return list(found.values())


def _few(geometry: Geometry) -> int:
    return geometry.images if geometry.kind == "linear" else 1
