"""Prior of a fast scan: the importance of each layer, estimated by one backward pass."""

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
from flyweight.sensitivity.scanned_cuts import LayerCut


def prior_of(
    graph: ModelGraph,
    model: nn.Module,
    evaluator: Evaluator,
    plans: Mapping[LayerCut, PruningPlan],
    batch: Any,
) -> dict[str, float] | None:
    """Return, by layer, the first-order Taylor score of the channels that its middle cut removes.

    The scores only order the layers: one batch and a first-order approximation are not accurate
    for large cuts.

    Args:
        graph: The graph of the model.
        model: The scanned network; it is not changed.
        evaluator: A task, or a score for each image.
        plans: The plan of every cut.
        batch: The batch whose loss is differentiated.

    Returns:
        Scores by layer; None where the evaluator has no loss.
    """
    loss = getattr(evaluator, "loss_at_rest", None)
    if loss is None:
        return None
    # A fixed seed: detectors draw random samples for their loss, and a resumed scan must get the
    # same scores.
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
