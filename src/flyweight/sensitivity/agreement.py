"""Agreement: an evaluator without labels, which compares a cut network with the dense one.

It is weaker than a metric: it counts changes of the outputs to which a metric would not react, and
it counts a change that improves the metric as a loss. It orders layers well; it does not estimate
how many points of a metric a cut costs.
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
    """Agreement with the network before any cut, 1 where outputs are equal; an `Evaluator`.

    `kl` is `exp(-KL(p || q))`, where p are the probabilities (softmax over axis 1) of the dense
    network and q those of the cut network, and the divergence is in nats, averaged over positions.
    It suits classifiers and segmenters. `feature_error` is `1 - |a - b|^2 / |a|^2`, at least 0,
    where a is the dense network's output and b the cut network's, averaged over output tensors. It
    suits every network whose outputs have one shape before and after a cut.

    Args:
        kind: Which of the two.

    Raises:
        PlanError: The kind is unknown.
    """

    primary = "agreement"

    def __init__(self, kind: Kind) -> None:
        if kind not in KINDS:
            raise PlanError(
                f"Agreement without labels must be one of {', '.join(KINDS)}. "
                f"Received {kind!r}. Or give a task, or a function that scores images."
            )
        self.kind = kind
        self._dense: list[Tensor] = []

    def begin(self, outputs: Any) -> None:
        """Store the outputs of the dense network, which those of cuts are compared with."""
        self._dense = [leaf.clone() for leaf in _leaves(outputs)]

    def forward(self, model: nn.Module, batch: Any) -> Any:
        """Run the model on the images of a batch."""
        images = getattr(batch, "images", batch)
        return model(images[0] if isinstance(images, (tuple, list)) else images)

    def decode(self, outputs: Any, batch: Any) -> Tensor:
        """Return the agreement of every image, `(n,)` float64.

        Raises:
            PlanError: The outputs have other shapes than those of the dense network.
        """
        found = _leaves(outputs)
        shapes = [[tuple(leaf.shape) for leaf in leaves] for leaves in (self._dense, found)]
        if shapes[0] != shapes[1] or not found:
            raise PlanError(
                "Agreement without labels must compare outputs of the same shapes. Received "
                f"{shapes[0]} before and {shapes[1]} after a cut. Give a task or a score instead."
            )
        compare = _divergence if self.kind == "kl" else _relative_error
        errors = [compare(a.double(), b.double()) for a, b in zip(self._dense, found, strict=True)]
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


def _divergence(dense: Tensor, cut: Tensor) -> Tensor:
    if dense.ndim == 1:
        raise PlanError(
            "Agreement by KL must compare scores of classes on axis 1. Received outputs of shape "
            f"{tuple(dense.shape)}. Use feature_error."
        )
    p, q = dense.log_softmax(1), cut.log_softmax(1)
    return (p.exp() * (p - q)).sum(1).reshape(len(p), -1).mean(1)


def _relative_error(dense: Tensor, cut: Tensor) -> Tensor:
    error = (dense - cut).reshape(len(dense), -1).square().sum(1)
    size = dense.reshape(len(dense), -1).square().sum(1)
    return error / size.clamp(min=torch.finfo(size.dtype).tiny)
