"""Scales that are nearly equal: one at a concatenation, and two at an average.

OpenVINO takes scales that meet at a concatenation as equal where 255 levels of the one are 254 to
256 of the other and both zero points are 0, and so computes up to half of the values one level off.
With one scale nothing is rounded again, and less than 0.4 % of a level is lost.

An average of integers with weights such as 1/64 lies halfway between two integers where the scale
of the result is that of what is averaged. Then the last bits of a float decide, and these differ
between runtimes. With a scale that is a little larger nothing lies there.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from flyweight.quantization.grids import HIGHEST, LOWEST, RELU6_SCALE, Grid
from flyweight.quantization.placement import CONCATENATING
from flyweight.quantization.quantization_plan import QuantizationPlan
from flyweight.quantization.sites import RecordedSites

_NEAR = 1.01 / (HIGHEST - LOWEST)
"""Difference of two scales, as a share of one, up to which OpenVINO takes them as equal."""
_APART = 1.0031415926
"""Scale of an average, as a share of that of what is averaged, where they would be equal. No simple
fraction: multiples of 1/64 would be ties again at some levels."""
_SAME = 1e-4
"""Difference of two scales, as a share of one, below which a level is near a tie."""


@dataclass(frozen=True)
class Joined:
    """The quantizers at an operation whose result has its own, such as a concatenation.

    Attributes:
        sources: Of the tensors that it takes.
        result: Of what it makes.
    """

    sources: tuple[str, ...]
    result: str


def joined(
    recorded: RecordedSites, plan: QuantizationPlan, operations: Collection[str] = CONCATENATING
) -> tuple[Joined, ...]:
    """Return the operations of some kinds whose result is rounded, in the order of execution.

    Args:
        recorded: From `sites.record_sites`.
        plan: From `placement.place`, for the same network.
        operations: ATen names of the kinds, such as `CONCATENATING` or `AVERAGING`.
    """
    names = {
        number: plan.inputs[place]
        for number, place in recorded.inputs.items()
        if place in plan.inputs
    }
    found = []
    for site in recorded.sites:
        result = plan.outputs.get(site.name)
        if result is None:
            continue
        if site.op in operations:
            sources = dict.fromkeys(names[number] for number in site.reads if number in names)
            found.append(Joined(tuple(sources), result))
        names |= dict.fromkeys(site.makes, result)
    return tuple(found)


def with_scales_apart(plan: QuantizationPlan, averages: Sequence[Joined]) -> QuantizationPlan:
    """Return a plan in which no average has the scale of what is averaged.

    Args:
        plan: With grids.
        averages: From `joined` with `AVERAGING`.
    """
    grids = dict(plan.grids)
    for average in averages:
        one = grids.get(average.result)
        others = [grids[name] for name in average.sources if name in grids]
        if one is not None and any(abs(one.scale / other.scale - 1) < _SAME for other in others):
            grids[average.result] = replace(one, scale=one.scale * _APART)
    return replace(plan, grids=grids)


def with_equal_scales(plan: QuantizationPlan, joins: Sequence[Joined]) -> QuantizationPlan:
    """Return a plan in which scales that meet at a concatenation are equal or clearly different.

    The larger one is taken; with a ReLU6 at most 6 / 255, above which ONNX Runtime computes it in
    float.

    Args:
        plan: With grids.
        joins: From `joined`.
    """
    grids = dict(plan.grids)
    for _ in joins:  # A scale that changes may come near to another one.
        before = dict(grids)
        for join in joins:
            near = [name for name in join.sources if _are_near(grids, name, join.result)]
            _make_equal(grids, [*near, join.result] if near else [], plan.limits)
        if grids == before:
            break
    return replace(plan, grids=grids)


def _are_near(grids: Mapping[str, Grid], source: str, result: str) -> bool:
    one, other = grids.get(source), grids.get(result)
    if source == result or one is None or other is None:
        return False
    at_zero = one.zero_point == other.zero_point == LOWEST
    return at_zero and abs(one.scale - other.scale) <= _NEAR * min(one.scale, other.scale)


def _make_equal(grids: dict[str, Grid], names: Sequence[str], limits: Mapping[str, float]) -> None:
    largest = max((grids[name].scale for name in names), default=0.0)
    scale = min(largest, RELU6_SCALE) if limits.keys() & set(names) else largest
    for name in names:
        grids[name] = replace(grids[name], scale=scale)
