"""Steps by which a network is quantized, each with the metric before and after it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from flyweight.config.quantization import QuantizeConfig
from flyweight.config.settings import Config
from flyweight.errors import PlanError, counted
from flyweight.pipeline.inputs import Data, val_batches
from flyweight.progress import Progress
from flyweight.quantization.adaptive_rounding import AdaptiveRounding, round_adaptively
from flyweight.quantization.block_reconstruction import reconstruct_blocks
from flyweight.quantization.layer_losses import layer_losses, sensitive_layers
from flyweight.quantization.quantize import QuantConfig, correct_biases
from flyweight.quantization.quantize import quantize as to_integers
from flyweight.report.quantization_results import QuantizationStep, finite

Evaluate = Callable[[nn.Module], float]
_BATCH = 8
_COMPARED = 4
"""Images on which the loss by layer is measured."""
_TITLES = {
    "fix_dead_channels": "dead channels",
    "equalize": "equalization",
    "correct_bias": "bias correction",
}
"""Options of `QuantConfig` that are steps of their own, in their order, and their names."""


@dataclass(frozen=True)
class CalibrationImages:
    """Training images, spread over the split, as in use, in batches of shape (n, 3, h, w).

    They are decoded again whenever they are gone through, so that no more than a batch is kept.

    Attributes:
        config: Has the preprocessing.
        data: Has the training split.
        count: Number of images; fewer where the split has fewer.
    """

    config: Config
    data: Data
    count: int

    def __len__(self) -> int:
        """Return the number of images."""
        return min(self.count, len(self.data.train))

    def __iter__(self) -> Iterator[Tensor]:
        """Yield the batches."""
        count = len(self)
        order = [place * len(self.data.train) // count for place in range(count)]
        for batch in val_batches(self.config, self.data.train, order=order):
            yield from torch.split(batch.images, _BATCH)


@dataclass(frozen=True)
class Calibrated:
    """A quantized network, before any training.

    Attributes:
        model: It.
        steps: What was done, with the metric before and after; empty where only calibration was.
        losses: Of each layer, by its operation; empty where the network cannot be run in parts.
    """

    model: nn.Module
    steps: tuple[QuantizationStep, ...]
    losses: dict[str, float]


def calibrated(
    dense: nn.Module,
    settings: Config,
    data: Data,
    evaluate: Evaluate,
    state_dir: Path,
    progress: Progress,
    *,
    floats: Mapping[str, str] = MappingProxyType({}),
) -> Calibrated:
    """Quantize a float network as the section `quantize` says, without training.

    Args:
        dense: The float network.
        settings: Have that section.
        data: Has the images.
        evaluate: Returns the metric of a network; called where there are several steps.
        state_dir: Where an interrupted calibration continues.
        progress: Receives messages.
        floats: Layers that stay float by choice, to the reason.

    Raises:
        PlanError: As of `fw.quantize`, or a network to reconstruct cannot be run in parts.
    """
    wanted = settings.quantize
    images = CalibrationImages(settings, data, wanted.images)
    progress.note(f"calibrating on {counted(len(images), 'training image')}, without labels")
    whole = quant_config(wanted, settings.bench.runtime, floats)
    recorded = _Recorded(evaluate if takes_steps(settings) else None, progress)
    rounds, small = wanted.reconstruct != "none", dense
    # What rounding adds is known after the last choice of roundings.
    first = replace(whole, correct_bias=whole.correct_bias and not rounds)
    for name, config in _plain_steps(first) if recorded.evaluate else (("", first),):
        before = small
        small = to_integers(dense, images, config, state_dir=state_dir, say=_noting(progress))
        recorded.add(name, before, small)
    losses = _losses(dense, small, whole, images, progress)
    if rounds:
        before, small = small, _reconstructed(dense, small, settings, losses, images, progress)
        recorded.add(f"reconstruction of {wanted.reconstruct}", before, small)
    if rounds and whole.correct_bias:
        before, small = small, correct_biases(dense, small, images)
        recorded.add(_TITLES["correct_bias"], before, small)
    return Calibrated(small, tuple(recorded.steps), losses)


def quant_config(
    wanted: QuantizeConfig, runtime: str, floats: Mapping[str, str] = MappingProxyType({})
) -> QuantConfig:
    """Return the part of a section `quantize` that `fw.quantize` takes.

    Args:
        wanted: The section.
        runtime: Name of the runtime that will run the network.
        floats: Layers that stay float by choice, to the reason.
    """
    names = {field.name for field in fields(QuantConfig)} - {"floats", "runtime"}
    chosen = {name: getattr(wanted, name) for name in names}
    return QuantConfig(**chosen, runtime=runtime, floats=floats)


def losses_of_layers(
    dense: nn.Module,
    small: nn.Module,
    config: QuantConfig,
    images: CalibrationImages,
    compared: CalibrationImages,
) -> dict[str, float]:
    """Return the loss by layer; where `exact` hides it, that of a network without `exact`.

    Args:
        dense: The float network.
        small: What `config` made of it.
        config: How it was quantized.
        images: Of the calibration.
        compared: Images on which outputs are compared.

    Raises:
        PlanError: As of `layer_losses`.
    """
    if config.exact:
        # Its scaled ReLU6 have no float counterpart; single layers lose on similar grids alike.
        small = to_integers(dense, images, replace(config, exact=False), say=_unsaid)
    return layer_losses(dense, small, compared)


def takes_steps(settings: Config) -> bool:
    """Whether a quantization has steps besides calibration with its defaults."""
    wanted = settings.quantize
    optional = wanted.equalize or wanted.reconstruct != "none"
    return optional or wanted.mode == "aware"


def _plain_steps(whole: QuantConfig) -> Iterator[tuple[str, QuantConfig]]:
    """Yield the steps of a calibration: each has one more option than the one before."""
    off: dict[str, Any] = dict.fromkeys(_TITLES, False)
    config = replace(whole, **off)
    yield "calibration", config
    for option, title in _TITLES.items():
        if getattr(whole, option):
            added: dict[str, Any] = {option: True}
            config = replace(config, **added)
            yield title, config


class _Recorded:
    """The metrics of steps; without an evaluation there are none."""

    def __init__(self, evaluate: Evaluate | None, progress: Progress) -> None:
        self.evaluate, self.progress = evaluate, progress
        self.steps: list[QuantizationStep] = []

    def add(self, name: str, before: nn.Module, after: nn.Module) -> None:
        """Evaluate a network after a step; before it only if no step was."""
        if self.evaluate is None:
            return
        first = self.steps[-1].after if self.steps else finite(self.evaluate(before))
        last = finite(self.evaluate(after))
        if first is None or last is None:  # A metric without any object or image.
            return
        self.steps.append(QuantizationStep(name=name, before=first, after=last))
        self.progress.note(f"{name}: {100 * first:.2f} % before, {100 * last:.2f} % after")


def _unsaid(text: str) -> None:
    """Leave out a note on images that was given before."""


def _noting(progress: Progress) -> Callable[[str], None]:
    return lambda text: progress.note(f"note: {text}")


def _losses(
    dense: nn.Module,
    small: nn.Module,
    config: QuantConfig,
    images: CalibrationImages,
    progress: Progress,
) -> dict[str, float]:
    few = replace(images, count=min(_COMPARED, images.count))
    try:
        return losses_of_layers(dense, small, config, images, few)
    except PlanError as error:
        if images.config.quantize.reconstruct != "none":
            raise
        progress.note(f"note: the cost of single layers is not shown: {error}")
        return {}


def _reconstructed(
    dense: nn.Module,
    small: nn.Module,
    settings: Config,
    losses: dict[str, float],
    images: CalibrationImages,
    progress: Progress,
) -> nn.Module:
    """Return the network with new roundings in the layers that have the most of the loss."""
    chosen = sensitive_layers(losses)
    progress.note(f"{counted(len(chosen), 'layer')} of {len(losses)} have 80 % of the cost")
    wanted, kept = settings.quantize, torch.cat(list(images))
    how = AdaptiveRounding(chosen, steps=wanted.reconstruct_steps)
    if wanted.reconstruct == "layers":
        return round_adaptively(dense, small, kept, how)
    return reconstruct_blocks(dense, small, kept, how, progress=progress)
