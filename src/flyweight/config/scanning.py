"""Options of a sensitivity scan; light, so that invalid ones are refused at once."""

from dataclasses import dataclass
from pathlib import Path

from flyweight.errors import PlanError, nearest

RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Shares of channels that a scan removes by default."""
CURVES = "sens.json"
"""The file of curves that a chain writes into its folder."""
SCANS = "sens*.json"
"""The files of curves that the report of a run folder shows; of several, the first."""
MODES = ("exact", "fast")


@dataclass(frozen=True)
class SensitivityOptions:
    """What the caller of the scanning stage chooses besides the config.

    Attributes:
        ratios: Shares of channels to remove, each tried on every layer.
        layers: What is scanned; empty for the layers of the config's `prune.params`, or else for
            every layer that can be cut.
        criterion: How channels are scored; empty for the config's.
        mode: "exact" uses all images, "fast" few of them and gives confidence intervals.
        max_drop: What a layer may cost. The fast mode spends little on layers that are clearly
            above or below.
        images: Files without labels to scan on instead of the validation split.
        ray: Address of a Ray cluster to spread the scan over; empty for none.
        file: Name of the file of the curves.

    Raises:
        PlanError: A value is invalid, or does not go with another.
    """

    ratios: tuple[float, ...] = RATIOS
    layers: tuple[str, ...] = ()
    criterion: str = ""
    mode: str = "exact"
    max_drop: float = 0.05
    images: tuple[Path, ...] = ()
    ray: str = ""
    file: str = CURVES

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise PlanError(
                f"A scan's mode must be one of {', '.join(MODES)}. Received '{self.mode}' in "
                f"--mode. {nearest(self.mode, MODES)}"
            )
        if self.mode == "fast" and self.ray:
            raise PlanError(
                "A scan must be fast or spread over a cluster. Received --mode fast and --ray. "
                "Leave one of them out."
            )
        if self.mode == "fast" and not 0 < self.max_drop < 1:
            raise PlanError(
                f"--max-drop must be a share between 0 and 1. Received {self.max_drop:g}. "
                "0.05 allows each layer to cost five per cent of the metric."
            )
