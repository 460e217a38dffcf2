"""Runtimes that are not there: times follow from widths by a rule that a test knows."""

import math

from flyweight.graph.cost import AxisSize, Geometry
from flyweight.measuring.timed_layers import TimedLayer


def blocked(step, *, calls=None):
    """Return a timer of a machine whose kernels compute full blocks of `step` channels."""

    def timer(geometry, points):
        if calls is not None:
            calls.append((geometry, list(points)))
        return [
            time_of(geometry, in_channels, out_channels, step)
            for in_channels, out_channels in points
        ]

    return timer


def time_of(geometry, in_channels, out_channels, step):
    """Return ms: area times full blocks read times full blocks made, and a start."""
    area = geometry.images * math.prod(geometry.size) * math.prod(geometry.kernel)
    full = [math.ceil(width / step) * step for width in (in_channels, out_channels)]
    product = full[1] if geometry.groups == 0 else full[0] * full[1] / geometry.groups
    return 0.001 + area * product * 1e-7


def layer(*, groups=1, full=(64, 64), kernel=3, name="conv"):
    geometry = Geometry(
        "convolution", 1, (20, 20), (kernel, kernel), (1, 1), (1, 1), (1, 1), (0, 0), groups
    )
    axes = (AxisSize(0, (("a", 1),)), AxisSize(0, (("b", 1),)))
    return TimedLayer(name, geometry, *axes, full, (True, True))
