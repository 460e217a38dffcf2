"""Judging without labels: how far a cut's outputs are from those of the network before any cut.

Weaker than a metric: a change that the metric would not notice counts, and a lucky one does not.
What it orders well are layers; what it cannot say is how many points of a metric a cut costs.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from flyweight.errors import PlanError
from flyweight.sensitivity.evaluator import MeanMetric

Kind = Literal["kl", "feature_error"]
KINDS: tuple[Kind, ...] = ("kl", "feature_error")


class Agreement:
    """Agreement with the network before any cut, 1 where outputs are the same; a `Evaluator`.

    `kl` is `exp(-KL(p || q))`, p the probabilities (softmax over axis 1) of the whole network and q
    the cut's, the divergence in nats and averaged over positions: for classifiers and segmenters.
    `feature_error` is `1 - |a - b|^2 / |a|^2`, at least 0, a the whole network's output and b the
    cut's, averaged over output tensors: for whatever has tensors of one shape as its outputs.

    Args:
        kind: Which of the two.

    Raises:
        PlanError: Another kind is asked for.
    """

    primary = "agreement"

    def __init__(self, kind: Kind) -> None:
        if kind not in KINDS:
            raise PlanError(
                f"Agreement without labels must be one of {', '.join(KINDS)}. "
                f"Received {kind!r}. Or give a task, or a function that scores images."
            )
        self.kind = kind
        self._whole: list[Tensor] = []

    def begin(self, outputs: Any) -> None:
        """Take `outputs`, of the network before any cut, as what cuts are compared with."""
        self._whole = [leaf.clone() for leaf in _leaves(outputs)]

    def forward(self, model: nn.Module, batch: Any) -> Any:
        """Run the model on the images of a batch."""
        images = getattr(batch, "images", batch)
        return model(images[0] if isinstance(images, (tuple, list)) else images)

    def decode(self, outputs: Any, batch: Any) -> Tensor:
        """Return the agreement of every image, `(n,)` float64."""
        found = _leaves(outputs)
        shapes = [[tuple(leaf.shape) for leaf in leaves] for leaves in (self._whole, found)]
        if shapes[0] != shapes[1] or not found:
            raise PlanError(
                "Agreement without labels must compare outputs of the same shapes. Received "
                f"{shapes[0]} before and {shapes[1]} after a cut. Give a task or a score instead."
            )
        compare = _divergence if self.kind == "kl" else _relative_error
        errors = [compare(a.double(), b.double()) for a, b in zip(self._whole, found, strict=True)]
        error = torch.stack(errors).mean(0)
        return torch.exp(-error) if self.kind == "kl" else 1 - error.clamp(max=1)

    def metric(self) -> MeanMetric:
        """Return a fresh metric."""
        return MeanMetric(self.primary)


def _leaves(outputs: Any) -> list[Tensor]:
    if isinstance(outputs, Mapping):
        outputs = dict(outputs)
    return [
        leaf
        for leaf in tree_leaves(outputs)
        if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.ndim
    ]


def _divergence(whole: Tensor, cut: Tensor) -> Tensor:
    if whole.ndim == 1:
        raise PlanError(
            "Agreement by KL must compare scores of classes on axis 1. Received outputs of shape "
            f"{tuple(whole.shape)}. Use feature_error."
        )
    p, q = whole.log_softmax(1), cut.log_softmax(1)
    return (p.exp() * (p - q)).sum(1).reshape(len(p), -1).mean(1)


def _relative_error(whole: Tensor, cut: Tensor) -> Tensor:
    off = (whole - cut).reshape(len(whole), -1).square().sum(1)
    size = whole.reshape(len(whole), -1).square().sum(1)
    return off / size.clamp(min=torch.finfo(size.dtype).tiny)
