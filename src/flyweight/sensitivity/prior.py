"""A guess, from one backward pass, of what each layer's channels are worth."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flyweight.graph.model_graph import ModelGraph
from flyweight.graph.stored import stored_tensors
from flyweight.pruning import PruningPlan, taylor
from flyweight.sensitivity.cuts import Cut
from flyweight.sensitivity.judge import Judge
from flyweight.sensitivity.probes import by_layer


def prior_of(
    graph: ModelGraph,
    model: nn.Module,
    judge: Judge,
    plans: Mapping[Cut, PruningPlan],
    batch: Any,
) -> dict[str, float] | None:
    """Return, by layer, the first-order Taylor score of what its middle cut removes.

    It orders layers, no more: one batch and first order say little about large cuts. None where
    the judge has no loss, or the network shows none to gradients.

    Args:
        graph: Of the model.
        model: Is left as it is.
        judge: A task, or a score for each picture.
        plans: What every cut keeps.
        batch: To take the loss of.
    """
    if not hasattr(judge, "loss"):
        return None

    def loss(twin: nn.Module, seen: Any) -> Tensor | Mapping[str, Tensor]:
        found: Tensor | Mapping[str, Tensor] = judge.loss(judge.forward(twin, seen), seen)
        return found

    # Gradients need tensors that were not made in inference mode.
    with torch.inference_mode(False):
        criterion = taylor(model, [batch], loss)
    tensors = stored_tensors(model)
    found = {}
    for layer, ratios in by_layer(tuple(plans)).items():
        middle = plans[layer, ratios[(len(ratios) - 1) // 2]]
        found[layer] = sum(
            float(np.delete(criterion(graph.groups[name], tensors), list(kept)).sum())
            for name, kept in middle.keep.items()
        )
    return found
