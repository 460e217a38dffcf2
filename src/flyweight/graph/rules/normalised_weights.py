"""Weights that are divided by a norm of their own, followed through the code that computes them.

`g * v / norm(v)` can be cut exactly if a stored scale `g` has a value for every norm: see
`graph/rescaling.py`. A product of stored tensors and norms is followed through products, quotients,
powers and changes of shape. A norm that is used in any other way, or that no scale stands beside,
computes across the channels that it sums over.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from flyweight.graph.identity import Flow
from flyweight.graph.rescaling import Factors, Norm, Scaled, Stored
from flyweight.graph.step import Step

_KEEPS = """
    view reshape flatten unflatten _unsafe_view view_as squeeze unsqueeze expand expand_as
    broadcast_to alias clone contiguous detach to _to_copy type_as lift_fresh_copy
"""
_POWERS = {"square": 2.0, "sqrt": 0.5, "rsqrt": -0.5, "reciprocal": -1.0}
_TINY = 1e-6
"""Code keeps a norm above such a number lest it divides by zero; other norms it does not change."""


def weight_norm(step: Step) -> Flow:
    """PyTorch's weight normalisation: `g * v / norm(v)`, with a norm per position of one axis."""
    weight, scale = step.flow("v"), step.flow("g")
    rank, axis = len(weight.shape), int(step.arguments.get("dim", 0))
    if axis >= 0:
        step.join(step.single(weight, axis), step.single(scale, axis))
    axes = tuple(place for place in range(rank) if place != axis)
    norm = _norm(step, weight, axes, 2.0)
    gain = _single(scale.factors)
    if norm is None or gain is None:
        for found in weight.fields:
            if found.axes != (axis,):
                step.mix(found.ids)
    else:
        step.ledger.norms.scaled.append(Scaled(norm, gain, aligned=True))
    return step.result(*weight.fields)


def sums_squares(step: Step, source: Flow) -> bool:
    """Whether an operation takes a norm of a stored tensor, or a sum of its squares."""
    if source.factors is None or not (source.parameter and source.zeros):
        return step.op in _NORMS and source.parameter
    return step.op in _NORMS or (step.op == "sum" and list(source.factors.values()) == [2.0])


_NORMS = ("linalg_vector_norm", "norm")


def with_factors(step: Step, results: tuple[Flow, ...]) -> tuple[Flow, ...]:
    """Return the results of an operation with what they are products of."""
    known = [flow.factors for flow in step.flows()]
    if not any(known):
        return results
    if step.op == "_weight_norm":
        return results
    made = _made(step, results)
    if made is None:
        for factors in known:
            step.ledger.norms.plain.update(factors or ())
        return results
    made = _with_scales(step, made)
    return tuple(replace(flow, factors=made) for flow in results)


def _made(step: Step, results: tuple[Flow, ...]) -> Factors | None:
    """Return what the result of an operation is a product of; None where it is no product."""
    op, flows = step.op, step.flows()
    factors = flows[0].factors
    if factors is None or (op in ("mul", "div") and any(flow.factors is None for flow in flows)):
        return None
    if op in _KEEPS.split():
        return factors
    if op in ("mul", "div"):
        sign = 1.0 if op == "mul" else -1.0
        first = step.arguments.get("self")
        if not isinstance(first, Flow):
            return None
        return _product(
            *(_power(one.factors or {}, sign if at else 1.0) for at, one in enumerate(flows))
        )
    if op in _POWERS:
        return _power(factors, _POWERS[op])
    if op == "pow" and isinstance(step.arguments.get("exponent"), int | float):
        return _power(factors, float(step.arguments["exponent"]))
    if op in ("clamp_min", "clamp") and step.arguments.get("max") is None:
        least = step.arguments.get("min")
        return factors if isinstance(least, float) and 0 < least <= _TINY else None
    if sums_squares(step, flows[0]):
        return _norm_of(step, flows[0], results[0])
    return None


def _norm_of(step: Step, source: Flow, result: Flow) -> Factors | None:
    weight = _single(source.factors, 2.0 if step.op == "sum" else 1.0)
    if weight is None:
        return None
    staying = np.concatenate([found.ids.ravel() for found in result.fields] or [np.zeros(0, int)])
    kept = [axis for axis, first in weight.first.items() if first in staying]
    axes = tuple(axis for axis in range(len(weight.shape)) if axis not in kept)
    if math.prod(weight.shape[axis] for axis in kept) != math.prod(result.shape):
        return None
    order = step.arguments.get("ord", step.arguments.get("p"))
    norm = _norm(step, source, axes, 2.0 if order is None or step.op == "sum" else float(order))
    return None if norm is None else {norm: 2.0 if step.op == "sum" else 1.0}


def _norm(step: Step, source: Flow, axes: tuple[int, ...], order: float) -> Norm | None:
    """Note a norm of a stored tensor."""
    weight = next(iter(source.factors or ()), None)
    if not isinstance(weight, Stored) or len(source.factors or ()) != 1:
        return None
    sizes = ((weight.first[axis], weight.shape[axis]) for axis in axes if axis in weight.first)
    ids = [np.arange(first, first + size) for first, size in sizes]
    joined = np.concatenate([np.zeros(0, np.int64), *ids])
    norm = Norm(weight, axes, order, joined, step.place())
    step.ledger.norms.found.append(norm)
    return norm


def _single(factors: Factors | None, exponent: float = 1.0) -> Stored | None:
    """Return the stored tensor that is the only factor, with this exponent."""
    for factor, power in (factors or {}).items():
        if len(factors or {}) == 1 and power == exponent and isinstance(factor, Stored):
            return factor
    return None


def _product(*factors: Factors) -> Factors:
    total: dict[Stored | Norm, float] = {}
    for one in factors:
        for factor, power in one.items():
            total[factor] = total.get(factor, 0.0) + power
    return {factor: power for factor, power in total.items() if power}


def _power(factors: Factors, exponent: float) -> Factors:
    return {factor: power * exponent for factor, power in factors.items()}


def _with_scales(step: Step, factors: Factors) -> Mapping[Stored | Norm, float]:
    """Return a product without the norms that a scale stands beside, and without these scales."""
    left = dict(factors)
    for norm in [one for one in factors if isinstance(one, Norm) and factors[one] == -1.0]:
        for scale in [one for one in left if isinstance(one, Stored) and left[one] == 1.0]:
            sizes = tuple(size for size in scale.shape if size > 1)
            if scale is not norm.weight and sizes == norm.sizes:
                step.ledger.norms.scaled.append(Scaled(norm, scale))
                del left[norm], left[scale]
                break
    return left
