"""Sensitivity scans: how a metric falls as layers lose channels; curves and plans made of them."""

from flyweight.config.budget import Budget
from flyweight.planning.latency_rounds import Fitted, Round, Timing, fit_latency
from flyweight.sensitivity.builtin_curves import builtin_curves, builtin_names
from flyweight.sensitivity.curves import Sensitivity, merge, read
from flyweight.sensitivity.evaluator import Evaluator
from flyweight.sensitivity.fast.decisions import FastScanSettings
from flyweight.sensitivity.measured_curves import Point
from flyweight.sensitivity.scan import ScanOptions, scan
from flyweight.sensitivity.scanned_cuts import RATIOS

__all__ = [
    "RATIOS",
    "Budget",
    "Evaluator",
    "FastScanSettings",
    "Fitted",
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
