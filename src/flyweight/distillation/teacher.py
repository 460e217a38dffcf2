"""Teacher: a frozen network that is run on the student's images, without gradients."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from flyweight.config.preprocessing import Preprocessing
from flyweight.distillation.teacher_cache import OutputCache

TeacherPrecision = Literal["auto", "32", "bf16"]
ImageChange = Callable[[Tensor], Tensor]
"""Makes the teacher's images `(n, 3, h, w)` of the student's."""


@dataclass(frozen=True)
class MatchedInput:
    """Normalisation, order of colours and size of one network in place of another's.

    Attributes:
        student: How the student's images were made.
        teacher: How the teacher expects them.
        resizes: Whether the teacher's size is kept, too. Maps are compared position by position,
            so detectors and segmenters see images of the student's size.
    """

    student: Preprocessing
    teacher: Preprocessing
    resizes: bool = False

    def __call__(self, images: Tensor) -> Tensor:
        """Return the teacher's images."""
        changed = self._renormalised(images)
        size = (self.teacher.height, self.teacher.width)
        if not self.resizes or tuple(images.shape[-2:]) == size:
            return changed
        return functional.interpolate(changed, size=size, mode="bilinear", antialias=True)

    def _renormalised(self, images: Tensor) -> Tensor:
        ours, theirs = self.student, self.teacher
        keys = ("mean", "std", "value_range", "channels")
        if all(getattr(ours, key) == getattr(theirs, key) for key in keys):
            return images
        pixels = images * _per_channel(ours.std, images) + _per_channel(ours.mean, images)
        pixels = pixels * (theirs.value_range / ours.value_range)
        if ours.channels != theirs.channels:
            pixels = pixels.flip(1)
        return (pixels - _per_channel(theirs.mean, images)) / _per_channel(theirs.std, images)


@dataclass(frozen=True, eq=False)
class Teacher:
    """A network that teaches, with how it is run.

    Attributes:
        model: The network; it is not changed.
        change: Makes its images of the student's; None gives it the same.
        precision: Of its convolutions and matrix products; see `run_teacher`.
        cache: Keeps what it makes of the images of a training; None runs it each time.
    """

    model: nn.Module
    change: ImageChange | None = None
    precision: TeacherPrecision = "auto"
    cache: OutputCache | None = None

    def images(self, images: Tensor) -> Tensor:
        """Return the teacher's images."""
        return images if self.change is None else self.change(images)

    def run(self, images: Tensor) -> Any:
        """Return what the teacher makes of the student's images."""
        return run_teacher(self.model, self.images(images), self.precision)

    def computes_halves(self, device: torch.device) -> bool:
        """Return whether it computes with bfloat16 on a device."""
        return computes_bf16(device) if self.precision == "auto" else self.precision == "bf16"


def _per_channel(values: tuple[float, ...], images: Tensor) -> Tensor:
    return images.new_tensor(values).view(1, -1, 1, 1)


def run_teacher(model: nn.Module, images: Tensor, precision: TeacherPrecision = "auto") -> Any:
    """Return what a teacher in evaluation mode makes of images, without gradients.

    Its modules are in their own modes again afterwards; nothing of it is changed.

    Args:
        model: The teacher, on the device of the images.
        images: The teacher's images.
        precision: "bf16" runs convolutions and matrix products in 16 bits; "auto" does so where
            the processor computes with them.
    """
    with torch.inference_mode(), evaluating(model), _autocast(images.device, precision):
        return model(images)


def _autocast(device: torch.device, precision: TeacherPrecision) -> AbstractContextManager[Any]:
    halves = computes_bf16(device) if precision == "auto" else precision == "bf16"
    # Fabric may have another precision active.
    kind = device.type
    if halves:
        return torch.autocast(kind, dtype=torch.bfloat16)
    return torch.autocast(kind, enabled=False) if kind in ("cpu", "cuda") else nullcontext()


def computes_bf16(device: torch.device) -> bool:
    """Return whether a processor has instructions for bfloat16; others emulate it slowly."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Keep a network in evaluation mode within this context."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def plain_copy(tensor: Tensor) -> Tensor:
    """Return a copy that autograd can keep; a tensor made in inference mode cannot be kept."""
    return tensor.clone() if tensor.is_inference() else tensor
