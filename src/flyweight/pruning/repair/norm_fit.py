"""Scales and offsets of cut normalisations, fitted to the results of the dense network.

For each channel the best scale and offset are those of a line through two columns of numbers: the
pruned network's normalised values, and the dense network's results at the same positions.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flyweight.errors import counted
from flyweight.pruning.repair.channel_norms import ChannelNorm, normalised
from flyweight.pruning.repair.layer_rows import CHECKED, Draw
from flyweight.pruning.repair.norm_folding import NormFold

EXACT = 1e-10
"""Squared error, as a share of the variance, below which nothing is fitted."""
_BETTER = 0.999
"""Largest share of the error before, on held-out rows, at which a fit is taken."""


@dataclass(frozen=True)
class NormFit:
    """The correction of one normalisation.

    Attributes:
        name: Name of its scale.
        rows: Number of rows that were compared.
        before: Squared error of its results, as a share of the variance of the dense network's
            results, with what stands before it already repaired.
        after: The same with the new scale and offset.
        how: `folded` (exact where its inputs are), `fitted` on the images, `folded, fitted`, or
            `kept` where neither is possible or better.
        epsilon: The new epsilon of the module, where it was folded.
    """

    name: str
    rows: int
    before: float
    after: float
    how: str
    epsilon: float | None = None

    @property
    def path(self) -> str:
        """Path of its module."""
        return self.name.rpartition(".")[0]

    def __str__(self) -> str:
        """Return one line."""
        return f"'{self.name}': residual {self.before:.3g} to {self.after:.3g} ({self.how})"


@dataclass(frozen=True, eq=False)
class Line:
    """Scale and offset of every channel; no offset where the normalisation has none."""

    scale: Tensor
    offset: Tensor | None


class LineFits:
    """Sums of two columns per channel, accumulated in float64."""

    def __init__(self) -> None:
        self.count = 0
        self._sums: tuple[Tensor, ...] = ()

    def add(self, rows: Tensor, targets: Tensor) -> None:
        """Add `(n, channels)` normalised values and as many results."""
        z, t = rows.double(), targets.double()
        new = (z.sum(0), t.sum(0), (z * z).sum(0), (z * t).sum(0), (t * t).sum(0))
        old = self._sums or tuple(torch.zeros_like(part) for part in new)
        self._sums = tuple(one + other for one, other in zip(old, new, strict=True))
        self.count += len(z)

    def include(self, other: "LineFits") -> None:
        """Add the rows of `other`."""
        if other.count:
            old = self._sums or tuple(torch.zeros_like(part) for part in other._sums)
            self._sums = tuple(one + two for one, two in zip(old, other._sums, strict=True))
            self.count += other.count

    def solve(self, start: Line) -> Line:
        """Return the best scale and offset; the scale of `start` where values do not vary."""
        z, t, zz, zt, _ = self._sums
        if start.offset is None:
            return Line(torch.where(zz > 0, zt / zz.clamp_min(1e-300), start.scale), None)
        spread, shared = zz - z * z / self.count, zt - z * t / self.count
        varies = spread > 1e-12 * zz
        scale = torch.where(varies, shared / spread.clamp_min(1e-300), start.scale)
        return Line(scale, (t - scale * z) / self.count)

    def error(self, line: Line) -> float:
        """Return the squared error of `line` as a share of the results' variance."""
        z, t, zz, zt, tt = self._sums
        w = line.scale
        b = torch.zeros_like(w) if line.offset is None else line.offset
        gap = w * w * zz + tt + b * b * self.count + 2 * (w * b * z - w * zt - b * t)
        spread = tt - t * t / self.count
        return float(gap.sum().clamp_min(0) / spread.sum().clamp_min(1e-300))


def refit_norm(
    norm: ChannelNorm,
    calls: Iterator[Mapping[str, Any]],
    outputs: list[Tensor],
    draw: Draw,
    fold: NormFold | None,
) -> NormFit:
    """Correct a normalisation: fold what is exact, fit on the images what is not.

    Args:
        norm: Of the pruned network.
        calls: Its arguments, per batch.
        outputs: Samples of the dense network's results for the channels that stay, per batch.
        draw: Drew the positions of these samples.
        fold: The exact correction, if there is one.
    """
    held = list(calls)
    seen, held_out = _compared(norm, held, outputs, draw, {})
    before = _together(seen, held_out).error(_line(norm))
    if fold is not None:
        fold.apply(norm)
        seen, held_out = _compared(norm, held, outputs, draw, {"eps": fold.epsilon})
    start = _line(norm)
    found = seen.solve(start)
    error = held_out.error(start) if held_out.count else seen.error(start)
    epsilon = None if fold is None else fold.epsilon
    better = held_out.count and held_out.error(found) < _BETTER * error
    both = _together(seen, held_out)
    if not better or error < EXACT:
        how = "kept" if fold is None else "folded"
        return NormFit(norm.name, both.count, before, both.error(start), how, epsilon)
    found = both.solve(start)
    norm.weight.data.copy_(found.scale)
    if norm.bias is not None and found.offset is not None:
        norm.bias.data.copy_(found.offset)
    how = "fitted" if fold is None else "folded, fitted"
    return NormFit(norm.name, both.count, before, both.error(found), how, epsilon)


def norms_text(fits: Sequence[NormFit]) -> str:
    """Return one line about all corrections: their number and the mean error."""
    if not fits:
        return "no normalisations over channels"
    folded = sum("folded" in fit.how for fit in fits)
    before, after = (
        sum(values) / len(fits)
        for values in ([fit.before for fit in fits], [fit.after for fit in fits])
    )
    return (
        f"{counted(len(fits), 'normalisation')} over channels, {folded} of them exactly: mean "
        f"residual {before:.3g} to {after:.3g}"
    )


def _line(norm: ChannelNorm) -> Line:
    bias = None if norm.bias is None else norm.bias.detach().double()
    return Line(norm.weight.detach().double(), bias)


def _compared(
    norm: ChannelNorm,
    calls: list[Mapping[str, Any]],
    outputs: list[Tensor],
    draw: Draw,
    changed: Mapping[str, Any],
) -> tuple[LineFits, LineFits]:
    """Return the sums of most rows, and those of the last ones of every batch."""
    seen, held_out = LineFits(), LineFits()
    for index, arguments in enumerate(calls):
        values = normalised(norm.op, {**arguments, **changed})
        rows = draw.sample(norm.name, index, values, norm.axis)
        # Rows come image by image, so these are of other images.
        place = len(rows) - len(rows) // CHECKED
        seen.add(rows[:place], outputs[index][:place])
        held_out.add(rows[place:], outputs[index][place:])
    return seen, held_out


def _together(seen: LineFits, held_out: LineFits) -> LineFits:
    both = LineFits()
    both.include(seen)
    both.include(held_out)
    return both
