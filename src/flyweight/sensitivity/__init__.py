"""What each layer's channels are worth: scans, their curves, and the plans that follow."""

from flyweight.sensitivity.budget import Budget
from flyweight.sensitivity.builtin_curves import builtin_curves, builtin_names
from flyweight.sensitivity.curves import Point, Sensitivity, merge, read
from flyweight.sensitivity.cuts import RATIOS
from flyweight.sensitivity.judge import Judge
from flyweight.sensitivity.latency_rounds import Fitted, Round, Timing, fit_latency
from flyweight.sensitivity.race import Pace
from flyweight.sensitivity.scan import ScanOptions, scan

__all__ = [
    "RATIOS",
    "Budget",
    "Fitted",
    "Judge",
    "Pace",
    "Point",
    "Round",
    "ScanOptions",
    "Sensitivity",
    "Timing",
    "builtin_curves",
    "builtin_names",
    "fit_latency",
    "merge",
    "read",
    "scan",
]
