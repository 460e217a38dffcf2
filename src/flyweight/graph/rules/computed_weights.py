"""Weights that code computes from stored tensors: sums of matrices, masks, scales, quantizers.

What a layer reads of such a weight is zero where the stored values are zero, as long as every
operation in between maps zeros to zeros. Only then is the stored tensor a place to zero channels
that leave, which the check after a cut does.
"""

from dataclasses import replace

from flyweight.graph.identity import Flow
from flyweight.graph.step import Step

PRODUCTS = frozenset(("mul", "multiply", "div", "divide", "true_divide"))
"""Operations whose result is zero where one of their tensors is."""
_CHANGES_ZEROS = """
    sigmoid log_sigmoid softplus threshold exp exp2 log log2 log10 rsqrt reciprocal cos cosh erfinv
    erfc logical_not isnan isinf ones_like full_like rand_like randn_like randint_like empty_like
    bernoulli fill hardsigmoid rrelu alpha_dropout feature_dropout acos acosh lgamma digamma
    polygamma mvlgamma sinc i0 logit signbit bitwise_not uniform normal exponential log_normal
    cauchy geometric random pow where masked_fill clamp clamp_min clamp_max add sub rsub subtract
    eq ne lt le gt ge logical_and logical_or logical_xor atan2 xlogy hypot copysign nextafter
    logaddexp logaddexp2 heaviside softmax log_softmax _softmax cumprod
"""


def as_weights(step: Step, results: tuple[Flow, ...]) -> tuple[Flow, ...]:
    """Return the results of an operation on stored tensors alone as tensors made of stored ones.

    Args:
        step: An operation whose rule was applied.
        results: What the rule returned.
    """
    sources = step.flows()
    if not sources or not all(flow.parameter for flow in sources):
        return results
    zeros = keeps_zeros(step)
    lost = tuple(ids for flow in sources for ids in flow.lost)
    own = tuple(found.ids.ravel() for flow in sources for found in flow.fields)
    return tuple(
        replace(flow, parameter=True, zeros=zeros, lost=lost if _is_whole(flow) else (*lost, *own))
        for flow in results
    )


def _is_whole(flow: Flow) -> bool:
    """Whether every axis of more than one position has identities."""
    return all(size == 1 or flow.field_on(axis) for axis, size in enumerate(flow.shape))


def keeps_zeros(step: Step) -> bool:
    """Whether the result of an operation on stored tensors is zero where they are."""
    sources = step.flows()
    if step.op in PRODUCTS:
        return any(flow.zeros for flow in sources)
    known = step.op not in _CHANGES_ZEROS.split() or _zero_at_zero(step)
    return known and all(flow.zeros for flow in sources)


def _zero_at_zero(step: Step) -> bool:
    numbers: dict[str, float] = {
        key: value for key, value in step.arguments.items() if _is_number(value)
    }
    if step.op in ("add", "sub", "subtract"):
        return "other" not in numbers or numbers["other"] == 0
    if step.op == "pow":
        return numbers.get("exponent", 0) > 0
    if step.op == "masked_fill":
        return numbers.get("value") == 0
    if step.op == "clamp":
        return numbers.get("min", 0) <= 0 <= numbers.get("max", 0)
    if step.op in ("clamp_min", "clamp_max"):
        least, most = numbers.get("min", 0), numbers.get("max", 0)
        return least <= 0 <= most
    return False


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
