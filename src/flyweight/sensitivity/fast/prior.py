"""A guess, from one backward pass, of what each layer's channels are worth."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from flyweight.graph.model_graph import ModelGraph
from flyweight.graph.stored import stored_tensors
from flyweight.pruning import PruningPlan, taylor
from flyweight.sensitivity.evaluator import Evaluator
from flyweight.sensitivity.fast.probes import by_layer
from flyweight.sensitivity.scanned_cuts import Cut


def prior_of(
    graph: ModelGraph,
    model: nn.Module,
    evaluator: Evaluator,
    plans: Mapping[Cut, PruningPlan],
    batch: Any,
) -> dict[str, float] | None:
    """Return, by layer, the first-order Taylor score of what its middle cut removes.

    It orders layers, no more: one batch and first order say little about large cuts. None where
    the judge has no loss.

    Args:
        graph: Of the model.
        model: Is left as it is.
        evaluator: A task, or a score for each image.
        plans: What every cut keeps.
        batch: To take the loss of.
    """
    loss = getattr(evaluator, "loss_at_rest", None)
    if loss is None:
        return None
    # Detectors that draw samples for their loss draw the same ones every time.
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
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
