"""Schedules of pruning in several steps: the ratio of each step, with training between them."""

import itertools
from collections.abc import Callable
from typing import Literal

from flyweight.errors import PlanError, nearest

Shape = Literal["cubic", "linear", "geometric"]

# Share of the channels that is removed after a share `t` of the steps.
_DONE: dict[str, Callable[[float, float], float]] = {
    "cubic": lambda ratio, t: ratio * (1 - (1 - t) ** 3),
    "linear": lambda ratio, t: ratio * t,
    "geometric": lambda ratio, t: 1 - (1 - ratio) ** t,
}


def ratios_per_step(ratio: float, steps: int, shape: Shape = "cubic") -> tuple[float, ...]:
    """Return the ratio of every step, each a share of what is left before the step.

    All steps together remove `ratio`: the product of `1 - r` over the steps is `1 - ratio`. The
    numbers serve both `plan(graph, r)` and `plan_globally(graph, budget=Budget(macs=1 - r))`.
    Channels are whole and each step rounds, so widths may end a channel away from those of one
    cut.

    Args:
        ratio: Share to remove in all, strictly between 0 and 1.
        steps: How many steps, at least 1.
        shape: `cubic` removes much in the first steps and little in the last ones (Zhu and Gupta
            2017, arXiv 1710.01878, equation 1: after step t of n, ratio * (1 - (1 - t/n)^3) is
            removed). `linear` removes the same number of channels at
            every step, `geometric` the same share.

    Raises:
        PlanError: A value is invalid.

    Example:
        >>> [round(step, 4) for step in ratios_per_step(0.5, 4)]
        [0.2891, 0.2088, 0.0972, 0.0154]
        >>> [round(step, 4) for step in ratios_per_step(0.75, 2, "geometric")]
        [0.5, 0.5]
    """
    _check(ratio, steps, shape)
    left = [1 - _DONE[shape](ratio, step / steps) for step in range(steps + 1)]
    return tuple(1 - after / before for before, after in itertools.pairwise(left))


def _check(ratio: object, steps: object, shape: str) -> None:
    number = isinstance(ratio, int | float) and not isinstance(ratio, bool)
    if not number or not 0 < float(ratio) < 1:  # type: ignore[arg-type]
        raise PlanError(
            "The ratio of a schedule must lie strictly between 0 and 1 (the share to remove in "
            f"all). Received {ratio!r}. Give 0.5 to remove half."
        )
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise PlanError(
            "The steps of a schedule must be a whole number of at least 1. "
            f"Received {steps!r}. Give 1 to cut at once."
        )
    if shape not in _DONE:
        raise PlanError(
            f"The shape of a schedule must be one of {', '.join(_DONE)}. Received '{shape}'. "
            f"{nearest(shape, _DONE)}"
        )
