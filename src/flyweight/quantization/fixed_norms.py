"""Batch normalisations with fixed statistics, which are written as products and sums.

Detectors have them (`FrozenBatchNorm2d` of torchvision and of transformers). As one operation they
are folded into the layer before; as products and sums they would stay float between two layers.
"""

from functools import partial

from torch import Tensor, nn
from torch.nn import functional

_CLASSES = ("FrozenBatchNorm2d",)
"""Ends of the names of their classes."""
_TENSORS = frozenset({"weight", "bias", "running_mean", "running_var"})
_EPSILON = 1e-5
"""Where a class does not say it."""


def as_batch_norms_(model: nn.Module) -> None:
    """Let the modules of `model` that are such normalisations run as one operation, in place."""
    for module in model.modules():
        held = {name for name, _ in module.named_buffers()}
        if type(module).__name__.endswith(_CLASSES) and held == _TENSORS:
            module.__dict__["forward"] = partial(_normalised, module)


def _normalised(module: nn.Module, images: Tensor) -> Tensor:
    tensors = dict(module.named_buffers())
    return functional.batch_norm(
        images,
        tensors["running_mean"],
        tensors["running_var"],
        tensors["weight"],
        tensors["bias"],
        eps=getattr(module, "eps", _EPSILON),
    )
