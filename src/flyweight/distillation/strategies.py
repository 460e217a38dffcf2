"""Strategies: which losses a student learns from its teacher by, and their weights."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from flyweight.config.distilling import AUTO, STRATEGY_WORDS, require_strategy
from flyweight.distillation.distillation_plan import Place

On = Literal["outputs", "crossed", "features", "heads"]
"""What a loss compares: outputs; cross-head predictions; all taps; the taps before heads."""
Kind = Literal["classes", "segments", "yolo", "maps", "features"]
"""What a network returns: scores of classes, maps of such scores, raw maps of YOLO, other maps, or
results whose number depends on the image, so that features alone can be compared."""


@dataclass(frozen=True)
class Term:
    """One loss of a strategy.

    Attributes:
        loss: Its name in `OUTPUT_LOSSES` or `FEATURE_LOSSES` of `terms`.
        on: What it compares.
        weight: Its factor. Losses on features are summed over taps.
    """

    loss: str
    on: On
    weight: float = 1.0

    @property
    def places(self) -> tuple[Place, ...]:
        """The places of the taps that it compares."""
        return ("head",) if self.on == "heads" else ("stage", "head")

    @property
    def on_features(self) -> bool:
        """Whether it compares taps."""
        return self.on in ("features", "heads")


@dataclass(frozen=True)
class Strategy:
    """Losses with their settings.

    Attributes:
        name: Its name in `STRATEGIES`, or one of your own.
        terms: The losses.
        temperature: Of softmaxes; None is 4 for classes and 1 for pixels and channels.
        masked_share: Of `mgd`.
    """

    name: str
    terms: tuple[Term, ...]
    temperature: float | None = None
    masked_share: float = 0.65

    def scaled(self, factor: float) -> "Strategy":
        """Return the same with all weights multiplied."""
        terms = tuple(replace(term, weight=factor * term.weight) for term in self.terms)
        return replace(self, terms=terms)


def _one(name: str, loss: str, on: On, weight: float = 1.0) -> Strategy:
    return Strategy(name, (Term(loss, on, weight),))


STRATEGIES: Mapping[str, Strategy] = {
    "kl": _one("kl", "kl", "outputs"),
    "dkd": _one("dkd", "dkd", "outputs"),
    "l2": _one("l2", "l2_distill", "outputs", 100.0),
    "split": _one("split", "split_distill", "outputs", 1000.0),
    "crosskd": _one("crosskd", "crosskd", "crossed"),
    "mimic": _one("mimic", "l2", "features"),
    "fsp": _one("fsp", "fsp", "features"),
    "attention": _one("attention", "attention", "features", 1000.0),
    "cwd": _one("cwd", "cwd", "features"),
    "pkd": _one("pkd", "pkd", "features", 6.0),
    "mgd": _one("mgd", "mgd", "features", 2e-5),
    "fgd": _one("fgd", "fgd", "heads"),
}
"""Strategies by name, with the weights of the papers or of their code: l2 and split of
PaddleDetection, attention of arXiv 1612.03928, pkd and mgd of arXiv 2207.02039 and 2205.01529."""

_FEATURES = Term("pkd", "features")
AUTOMATIC: Mapping[Kind, Strategy] = {
    "classes": Strategy(AUTO, (Term("kl", "outputs", 0.5), Term("pkd", "features", 12.0)), 2.0),
    "segments": Strategy(AUTO, (Term("kl", "outputs"), _FEATURES)),
    "yolo": Strategy(AUTO, (Term("split_distill", "outputs", 1000.0), Term("pkd", "heads"))),
    "maps": Strategy(AUTO, (Term("l2_distill", "outputs"), _FEATURES)),
    "features": Strategy(AUTO, (Term("pkd", "features", 6.0),)),
}
"""The strategy without any choice, by what the network returns.

Of classes: 150 steps of a MobileNetV2 cut to a fifth of its multiply-adds, on 230 held-out training
images, where one standard error is 3 points: without a teacher 60.4 % were right; kl at a
temperature of 4, 2, 1: 54.8, 58.7, 56.1; pkd 58.3; these weights 62.6.
"""


def strategy_for(chosen: "Strategy | str | None", kind: Kind) -> Strategy:
    """Return a strategy.

    Args:
        chosen: A strategy, its name, or None for the automatic one.
        kind: What the student returns.

    Raises:
        ConfigError: There is no strategy of this name.
    """
    if isinstance(chosen, Strategy):
        return chosen
    if chosen is None or chosen == AUTO:
        return AUTOMATIC[kind]
    require_strategy(chosen)
    return STRATEGIES[STRATEGY_WORDS.get(chosen, chosen)]


def without_features(strategy: Strategy) -> Strategy:
    """Return a strategy's losses on outputs, for networks without a common tap.

    Where there are none, all stay, and the networks are refused.
    """
    left = tuple(term for term in strategy.terms if not term.on_features)
    return replace(strategy, terms=left) if left else strategy
