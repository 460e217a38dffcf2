"""Terms of a distillation: named losses applied to the tensors of two networks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from flyweight.distillation import detector_losses, feature_losses, head_losses
from flyweight.distillation.adaptors import Generator, GlobalContext, widener
from flyweight.distillation.distillation_plan import Tap
from flyweight.distillation.seen_tensors import SeenTensor
from flyweight.distillation.strategies import Strategy, Term
from flyweight.distillation.truth import Truth
from flyweight.errors import ConfigError, TrainingError, nearest

_CLASS_TEMPERATURE = 4.0


@dataclass(frozen=True)
class Context:
    """What losses need besides the tensors.

    Attributes:
        strategy: Has their settings.
        num_classes: Classes without background of YOLO heads; None for other networks.
        image_size: Height and width of the student's input.
        truth: Labels of the batch.
    """

    strategy: Strategy
    num_classes: int | None
    image_size: tuple[int, int]
    truth: Truth = field(default_factory=Truth)


OutputLoss = Callable[[Sequence[Tensor], Sequence[Tensor], Context], Tensor]
FeatureLoss = Callable[[Tensor, Tensor, nn.ModuleDict, Context], Tensor]


def _kl(student: Sequence[Tensor], teacher: Sequence[Tensor], context: Context) -> Tensor:
    losses = []
    for ours, theirs in zip(student, teacher, strict=True):
        maps = ours.ndim == 4
        given = context.strategy.temperature
        temperature = given or (1.0 if maps else _CLASS_TEMPERATURE)
        if maps and ours.shape[-2:] != theirs.shape[-2:]:
            theirs = _resized(theirs, ours)
        mask = context.truth.mask if maps else None
        losses.append(head_losses.kl(ours, theirs, temperature, mask))
    return torch.stack(losses).sum()


def _dkd(student: Sequence[Tensor], teacher: Sequence[Tensor], context: Context) -> Tensor:
    labels = context.truth.labels
    if labels is None:
        raise TrainingError(
            "dkd must get the labels of the images. Received none. "
            "Give them: distiller.loss(images, Truth(labels=labels))"
        )
    temperature = context.strategy.temperature or _CLASS_TEMPERATURE
    losses = [
        head_losses.dkd(ours, theirs, labels, temperature=temperature)
        for ours, theirs in zip(student, teacher, strict=True)
    ]
    return torch.stack(losses).sum()


def _l2_outputs(student: Sequence[Tensor], teacher: Sequence[Tensor], context: Context) -> Tensor:
    return head_losses.l2_distill(student, teacher, weight=1.0)


def _split(student: Sequence[Tensor], teacher: Sequence[Tensor], context: Context) -> Tensor:
    if context.num_classes is None:
        raise ConfigError(
            "split_distill must compare raw maps of YOLO heads. Received outputs of another "
            "network. Choose another strategy, for example l2 or pkd."
        )
    return head_losses.split_distill(student, teacher, context.num_classes, weight=1.0)


def _crosskd(crossed: Sequence[Tensor], teacher: Sequence[Tensor], context: Context) -> Tensor:
    return detector_losses.crosskd(crossed, teacher, context.num_classes)


def _l2(student: Tensor, teacher: Tensor, own: nn.ModuleDict, context: Context) -> Tensor:
    return feature_losses.l2(student, teacher, context.truth.mask)


def _attention(student: Tensor, teacher: Tensor, own: nn.ModuleDict, context: Context) -> Tensor:
    return feature_losses.attention(student, teacher)


def _cwd(student: Tensor, teacher: Tensor, own: nn.ModuleDict, context: Context) -> Tensor:
    temperature = context.strategy.temperature or 1.0
    return feature_losses.cwd(student, teacher, temperature, context.truth.mask)


def _pkd(student: Tensor, teacher: Tensor, own: nn.ModuleDict, context: Context) -> Tensor:
    return feature_losses.pkd(student, teacher)


def _mgd(student: Tensor, teacher: Tensor, own: nn.ModuleDict, context: Context) -> Tensor:
    share = context.strategy.masked_share
    return feature_losses.mgd(student, teacher, own["generator"], masked_share=share)


def _fgd(student: Tensor, teacher: Tensor, own: nn.ModuleDict, context: Context) -> Tensor:
    boxes = context.truth.boxes
    if boxes is None:
        raise TrainingError(
            "fgd must get the boxes of the images. Received none. "
            "Give them: distiller.loss(images, Truth(boxes=[...]))"
        )
    relations = (own["relation_of_student"], own["relation_of_teacher"])
    return detector_losses.fgd(student, teacher, boxes, context.image_size, relations=relations)


OUTPUT_LOSSES: Mapping[str, OutputLoss] = {
    "kl": _kl,
    "dkd": _dkd,
    "l2_distill": _l2_outputs,
    "split_distill": _split,
    "crosskd": _crosskd,
}
"""Losses on outputs by name; weights are those of the terms."""
FEATURE_LOSSES: Mapping[str, FeatureLoss] = {
    "l2": _l2,
    "attention": _attention,
    "cwd": _cwd,
    "pkd": _pkd,
    "mgd": _mgd,
    "fgd": _fgd,
}
"""Losses on one tap by name."""
PAIR_LOSSES: Mapping[str, Callable[..., Tensor]] = {"fsp": feature_losses.fsp}
"""Losses on two successive taps by name."""
ANY_WIDTH = frozenset({"attention"})
"""Losses that compare features of different widths without an adaptor."""


def require_losses(strategy: Strategy) -> None:
    """Check the names of a strategy's losses.

    Raises:
        ConfigError: One is unknown, or compares something else.
    """
    for term in strategy.terms:
        known = {**FEATURE_LOSSES, **PAIR_LOSSES} if term.on_features else OUTPUT_LOSSES
        if term.loss not in known:
            raise ConfigError(
                f"A loss on {term.on} must be one of {', '.join(known)}. Received '{term.loss}' in "
                f"strategy '{strategy.name}'. {nearest(term.loss, known)}"
            )


def modules_for(tap: Tap, terms: Sequence[Term]) -> nn.ModuleDict:
    """Return the modules that learn at a tap: a layer that widens, a generator, relations.

    Args:
        tap: The pair of features.
        terms: The losses that compare them.
    """
    own = nn.ModuleDict()
    ours, theirs = tap.student.channels, tap.teacher.channels
    losses = {term.loss for term in terms}
    if tap.widens and losses - ANY_WIDTH:
        own["widen"] = widener(ours, theirs)
    if "mgd" in losses:
        own["generator"] = Generator(theirs)
    if "fgd" in losses:
        own["relation_of_student"] = GlobalContext(theirs)
        own["relation_of_teacher"] = GlobalContext(theirs)
    return own


def as_maps(features: Tensor, seen: SeenTensor) -> Tensor:
    """Return features as float32 maps `(n, channels, h, w)`; those of tokens have a width of 1."""
    features = features.to(torch.float32)
    if seen.layout == "maps":
        return features
    if seen.layout == "last":
        return features.movedim(-1, 1)
    rows = features.flatten(1, -2) if features.ndim > 2 else features[:, None]
    return rows.transpose(1, 2)[..., None]


def compared(student: Tensor, teacher: Tensor, own: nn.ModuleDict, loss: str) -> Tensor:
    """Return the student's features as a loss takes them: with the teacher's width and size."""
    if "widen" in own and loss not in ANY_WIDTH:
        student = own["widen"](student)
    return student if student.shape[-2:] == teacher.shape[-2:] else _resized(student, teacher)


def _resized(features: Tensor, like: Tensor) -> Tensor:
    size = like.shape[-2:]
    return functional.interpolate(features.to(torch.float32), size=size, mode="bilinear")
