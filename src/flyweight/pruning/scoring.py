"""Scores of groups by a criterion that is given by name or as a callable."""

from typing import Any

import numpy as np
from torch import Tensor

from flyweight.errors import PlanError, nearest
from flyweight.graph.groups import ChannelGroup
from flyweight.graph.model_graph import ModelGraph
from flyweight.pruning.criteria import CRITERIA, Criterion, Scores, makers


def find_criterion(criterion: str | Criterion) -> Criterion:
    """Return the criterion of a name; a callable is returned as it is.

    Raises:
        PlanError: The name is unknown, or the criterion needs data.
    """
    if not isinstance(criterion, str):
        return criterion
    if criterion == "taylor":
        raise PlanError(
            "Criterion 'taylor' needs data. Received its name alone. Make it with "
            "pruning.taylor(model, batches, loss) and pass the result."
        )
    if criterion not in CRITERIA:
        raise PlanError(
            f"A criterion must be one of {', '.join(CRITERIA)} or a callable. Received "
            f"'{criterion}'. {nearest(criterion, CRITERIA)}"
        )
    return CRITERIA[criterion]


def criterion_name(criterion: str | Criterion) -> str:
    """Return the name of the criterion in a plan."""
    if isinstance(criterion, str):
        return criterion
    name = getattr(criterion, "name", None) or getattr(criterion, "__name__", "callable")
    return str(name)


def scores_of(criterion: Criterion, group: ChannelGroup, graph: ModelGraph) -> Scores:
    """Return one finite score per channel of `group`.

    The criterion may return an array, a list of numbers, or a tensor, with a gradient or on another
    device too.

    Raises:
        PlanError: The model has no weights, or the scores cannot be used.
    """
    if (
        any(graph.tensors[member.tensor].is_meta for member in makers(group))
        and criterion is not CRITERIA["first"]
    ):
        raise PlanError(
            "A criterion needs weights. Received a model without weights (meta device) for group "
            f"'{group.name}'. Load weights, or price the plan with criterion='first'."
        )
    found = criterion(group, graph.tensors)
    try:
        scores = np.asarray(_plain(found), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise PlanError(
            "A criterion must give one finite score per channel. Received "
            f"{type(found).__name__} for group '{group.name}' of {group.size} channels, which "
            "does not hold numbers. Return an array, a tensor or a list."
        ) from error
    if scores.shape != (group.size,) or not np.isfinite(scores).all():
        raise PlanError(
            f"A criterion must give one finite score per channel. Received shape {scores.shape} "
            f"for group '{group.name}' of {group.size} channels. Check the criterion and the "
            "weights for NaN."
        )
    return scores


def _plain(found: Any) -> Any:
    if isinstance(found, Tensor):
        return found.detach().cpu().double().numpy()
    if isinstance(found, list | tuple):
        return [_plain(item) for item in found]
    return found
