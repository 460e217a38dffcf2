"""Turn ratios into a plan: a pure function of graph, weights and criterion."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from flyweight.errors import PlanError, nearest
from flyweight.graph.groups import ChannelGroup
from flyweight.graph.model_graph import ModelGraph
from flyweight.pruning.criteria import CRITERIA, Criterion, Scores
from flyweight.pruning.names import resolve
from flyweight.pruning.plans import GroupPlan, PruningPlan, narrowed


@dataclass(frozen=True)
class _Request:
    """One group's ratio and, under the local rule, the layer whose weights decide."""

    group: ChannelGroup
    ratio: float
    named: str


def plan(
    graph: ModelGraph,
    ratios: Mapping[str, float] | float,
    criterion: str | Criterion = "l1_norm",
    *,
    round_to: int = 1,
    local: bool = False,
    inexact: bool = False,
    aliases: Mapping[str, str] | None = None,
) -> PruningPlan:
    """Choose the channels that stay.

    `int(round(channels * ratio))` channels of a group leave, never all of them; scores come from
    the weights that `graph` was traced with.

    Args:
        graph: From `trace`.
        ratios: Share of channels to remove, per layer (any layer of a group names the group), or
            one number for every prunable group.
        criterion: A name of `criteria.CRITERIA` or a callable `(group, tensors) -> scores`.
        round_to: What stays is rounded to the nearest multiple, at least one of them.
        local: Score the named layer alone, as the originals did, not all layers that make the
            group's channels.
        inexact: Allow groups whose channels pass an operation that mixes them.
        aliases: Other names of parameters, for example a model's old ones.

    Raises:
        PlanError: A name, a ratio or a criterion that cannot be meant, or a group that is frozen.
    """
    scorer = _criterion(criterion)
    _check_multiple(round_to)
    requests, notes = _requests(graph, ratios, aliases or {}, inexact=inexact, local=local)
    groups: dict[str, GroupPlan] = {}
    for request in requests:
        stays = _kept_count(request.group.size, request.ratio, round_to)
        if stays < request.group.size:
            scored = _alone(request.group, request.named) if local else request.group
            keep = _highest(_scores(scorer, scored, graph), stays)
            groups[request.group.name] = narrowed(request.group, keep)
    name = criterion if isinstance(criterion, str) else getattr(criterion, "__name__", "callable")
    ordered = {key: groups[key] for key in graph.groups if key in groups}
    return PruningPlan(graph.fingerprint, ordered, str(name), graph.inputs, tuple(notes))


def _criterion(criterion: str | Criterion) -> Criterion:
    if not isinstance(criterion, str):
        return criterion
    if criterion not in CRITERIA:
        raise PlanError(
            f"A criterion must be one of {', '.join(CRITERIA)} or a callable. Received "
            f"'{criterion}'. "
            f"{nearest(criterion, CRITERIA)}"
        )
    return CRITERIA[criterion]


def _requests(
    graph: ModelGraph,
    ratios: Mapping[str, float] | float,
    aliases: Mapping[str, str],
    *,
    inexact: bool,
    local: bool,
) -> tuple[list[_Request], list[str]]:
    if not isinstance(ratios, Mapping):
        _check_ratio("every group", ratios)
        every = [g for g in graph.groups.values() if g.reason is None and (g.exact or inexact)]
        return [_Request(group, float(ratios), group.name) for group in every], []
    makers = _makers(graph)
    asked: dict[str, _Request] = {}
    notes: list[str] = []
    for name, ratio in ratios.items():
        _check_ratio(name, ratio)
        tensor = name if name in graph.groups else resolve(name, graph.tensors, aliases)
        for group in _groups_of(tensor, graph, makers):
            _require_prunable(name, group, inexact)
            earlier = asked.get(group.name)
            if earlier is None:
                asked[group.name] = _Request(group, float(ratio), tensor)
            elif earlier.ratio != ratio:
                notes.append(
                    f"'{name}' is cut together with '{earlier.named}': the ratio given first, "
                    f"{earlier.ratio:g}, holds for both; {ratio:g} was left aside."
                )
            elif local and earlier.named != tensor:
                notes.append(
                    f"'{name}' is cut together with '{earlier.named}', whose weights alone choose "
                    "the channels."
                )
    return list(asked.values()), notes


def _makers(graph: ModelGraph) -> dict[str, list[ChannelGroup]]:
    makers: dict[str, list[ChannelGroup]] = {}
    for group in graph.groups.values():
        for member in group.producers():
            makers.setdefault(member.tensor, []).append(group)
    return makers


def _groups_of(
    tensor: str, graph: ModelGraph, makers: Mapping[str, list[ChannelGroup]]
) -> list[ChannelGroup]:
    if tensor in makers:
        return makers[tensor]
    if tensor in graph.groups:
        return [graph.groups[tensor]]
    raise PlanError(
        "A pruned parameter must be the weight of a layer that makes channels. Received "
        f"'{tensor}', which "
        f"makes none. {nearest(tensor, makers)}"
    )


def _require_prunable(name: str, group: ChannelGroup, inexact: bool) -> None:
    if group.reason is not None:
        raise PlanError(
            f"'{name}' must be free to change its width. Received a layer of group '{group.name}', "
            "which "
            f"{group.reason}. Leave it out."
        )
    if group.mixes and not inexact:
        raise PlanError(
            f"'{name}' must be cut exactly. Received a layer of group '{group.name}', whose "
            "channels are mixed by "
            f"{group.mixes[0]}. Leave it out, or allow it with inexact=True."
        )


def _check_ratio(name: str, ratio: object) -> None:
    number = isinstance(ratio, (int, float)) and not isinstance(ratio, bool)
    if not number or not 0 < float(ratio) < 1:  # type: ignore[arg-type]
        raise PlanError(
            "A ratio must lie strictly between 0 and 1 (the share of channels to remove). "
            f"Received {ratio!r} for "
            f"{name if name == 'every group' else repr(name)}. Leave a layer out to keep it whole."
        )


def _check_multiple(round_to: object) -> None:
    if not isinstance(round_to, int) or isinstance(round_to, bool) or round_to < 1:
        raise PlanError(
            "round_to must be a whole number of at least 1. "
            f"Received {round_to!r}. Give 8 to keep multiples of eight."
        )


def _kept_count(channels: int, ratio: float, round_to: int) -> int:
    stays = max(channels - round(channels * ratio), 1)
    if round_to > 1:
        stays = max(round(stays / round_to), 1) * round_to
    return min(stays, channels)


def _alone(group: ChannelGroup, tensor: str) -> ChannelGroup:
    named = tuple(member for member in group.producers() if member.tensor == tensor)
    return replace(group, members=named) if named else group


def _scores(scorer: Criterion, group: ChannelGroup, graph: ModelGraph) -> Scores:
    if (
        any(graph.tensors[member.tensor].is_meta for member in group.producers())
        and scorer is not CRITERIA["first"]
    ):
        raise PlanError(
            "A criterion must see weights. Received a model without any (meta device) for group "
            f"'{group.name}'. "
            "Load weights, or price the plan with criterion='first'."
        )
    scores = np.asarray(scorer(group, graph.tensors), dtype=np.float64)
    if scores.shape != (group.size,) or not np.isfinite(scores).all():
        raise PlanError(
            f"A criterion must give one finite score per channel. Received shape {scores.shape} "
            "for group "
            f"'{group.name}' of {group.size} channels. Check the criterion and the weights for NaN."
        )
    return scores


def _highest(scores: Scores, count: int) -> tuple[int, ...]:
    """Return the indices of the `count` highest scores; of equals, the first ones leave."""
    return tuple(sorted(np.argsort(scores, kind="stable")[len(scores) - count :].tolist()))
