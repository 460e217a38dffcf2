"""Plans made from ratios: pure functions of graph, weights and criterion."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from operator import eq
from typing import NoReturn

import numpy as np

from flyweight.config.cuts import require_multiple, require_ratio
from flyweight.errors import PlanError, nearest
from flyweight.graph.groups import ChannelGroup, Member
from flyweight.graph.model_graph import ModelGraph
from flyweight.pruning.criteria import Criterion, Scores, normalisation_scales
from flyweight.pruning.mixed import mixed_groups, note_on_ratio
from flyweight.pruning.names import resolve_group
from flyweight.pruning.plans import PruningPlan
from flyweight.pruning.scoring import criterion_name, find_criterion, scores_of


@dataclass(frozen=True)
class _Request:
    """The ratio of one group and, under the local rule, the layer whose weights are scored."""

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
    """Return the plan that removes a share of the channels of every named layer.

    `int(round(channels * ratio))` channels of a group are removed, never all of them; scores come
    from the weights that `graph` was traced with.

    Args:
        graph: From `trace`.
        ratios: Share of channels to remove, per layer (any layer of a group names the group), or
            one number for every prunable group.
        criterion: A name of `criteria.CRITERIA` or a callable `(group, tensors) -> scores`.
        round_to: The number of channels that stay is rounded to the nearest multiple of this, and
            is at least this.
        local: Score the named layer alone, as the originals did, not all layers that produce the
            group's channels. Of several normalisations, only the layer's own is scored.
        inexact: Allow groups whose channels pass an operation that mixes them.
        aliases: Other names of parameters, for example a model's old ones.

    Raises:
        PlanError: A name, a ratio or a criterion is unknown or invalid, or a group is frozen.
    """
    scorer = find_criterion(criterion)
    require_multiple(round_to)
    requests, notes = _requests(graph, ratios, aliases or {}, inexact=inexact, local=local)
    kept: dict[str, tuple[int, ...]] = {}
    for request in requests:
        stays = kept_count(request.group.size, request.ratio, round_to)
        if stays < request.group.size:
            scored = _alone(request.group, request.named, graph) if local else request.group
            kept[request.group.name] = _highest(scores_of(scorer, scored, graph), stays)
    if not isinstance(ratios, Mapping) and not inexact:
        notes.extend(mixed_notes(graph, float(ratios), round_to))
    return PruningPlan.of(graph, kept, criterion_name(criterion), tuple(notes))


def mixed_notes(graph: ModelGraph, ratio: float, round_to: int = 1) -> list[str]:
    """Return a note on the mixed groups that `ratio` of every group leaves whole, if they matter.

    Args:
        graph: From `trace`.
        ratio: Share of channels to remove.
        round_to: As for `plan`.
    """
    exact = {g.name: kept_count(g.size, ratio, round_to) for g in graph.prunable().values()}
    others = {g.name: kept_count(g.size, ratio, round_to) for g in mixed_groups(graph)}
    note = note_on_ratio(graph, exact, {**exact, **others})
    return [] if note is None else [note]


def _requests(
    graph: ModelGraph,
    ratios: Mapping[str, float] | float,
    aliases: Mapping[str, str],
    *,
    inexact: bool,
    local: bool,
) -> tuple[list[_Request], list[str]]:
    if not isinstance(ratios, Mapping):
        require_ratio("every group", ratios)
        every = [g for g in graph.groups.values() if g.reason is None and (g.exact or inexact)]
        return [_Request(group, float(ratios), group.name) for group in every], []
    layers = layers_in(graph)
    named = {name: resolve_group(name, graph.groups, graph.tensors, aliases) for name in ratios}
    asked: dict[str, _Request] = {}
    notes: list[str] = []
    # A group that is named by itself has this ratio, also where its layer is named before it.
    for name in sorted(ratios, key=lambda name: named[name] in layers):
        require_ratio(name, ratios[name])
        groups, remarks = free_groups(name, groups_of(named[name], graph, layers), inexact=inexact)
        notes.extend(remarks)
        for group in groups:
            request = _Request(group, float(ratios[name]), named[name])
            earlier = asked.setdefault(group.name, request)
            if earlier is not request and earlier.named in layers:
                notes.extend(_together(name, request, earlier, local=local))
    return list(asked.values()), notes


def _together(name: str, request: _Request, earlier: _Request, *, local: bool) -> Iterator[str]:
    """Yield a note where a group that is named twice cannot follow both names."""
    if earlier.ratio != request.ratio:
        yield (
            f"'{name}' is cut together with '{earlier.named}': the ratio given first, "
            f"{earlier.ratio:g}, holds for both; {request.ratio:g} is ignored."
        )
    elif local and earlier.named != request.named:
        yield (
            f"'{name}' is cut together with '{earlier.named}', whose weights alone choose the "
            "channels."
        )


def leaving_orders(
    graph: ModelGraph,
    layer: str,
    criterion: str | Criterion = "l1_norm",
    *,
    local: bool = False,
    inexact: bool = False,
    aliases: Mapping[str, str] | None = None,
) -> dict[str, tuple[int, ...]]:
    """Return the order in which `plan` removes channels, for each group of a layer.

    Args:
        graph: From `trace`.
        layer: By any name that `plan` accepts.
        criterion: As for `plan`.
        local: As for `plan`.
        inexact: As for `plan`.
        aliases: As for `plan`.

    Raises:
        PlanError: The layer or the criterion is unknown, or a group is frozen.
    """
    scorer = find_criterion(criterion)
    requests, _ = _requests(graph, {layer: 0.5}, aliases or {}, inexact=inexact, local=local)
    orders: dict[str, tuple[int, ...]] = {}
    for request in requests:
        scored = _alone(request.group, request.named, graph) if local else request.group
        orders[request.group.name] = _rising(scores_of(scorer, scored, graph))
    return orders


def layers_in(graph: ModelGraph) -> dict[str, list[ChannelGroup]]:
    """Return, for every weight that produces channels, the groups of these channels."""
    layers: dict[str, list[ChannelGroup]] = {}
    for group in graph.groups.values():
        for member in group.producers():
            layers.setdefault(member.tensor, []).append(group)
    return layers


def groups_of(
    tensor: str, graph: ModelGraph, layers: Mapping[str, list[ChannelGroup]]
) -> list[ChannelGroup]:
    """Return the groups of a layer's channels.

    Args:
        tensor: The layer's weight, or the name of a group.
        graph: The graph of the groups.
        layers: The result of `layers_in`.

    Raises:
        PlanError: The tensor produces no channels.
    """
    if tensor in layers:
        return layers[tensor]
    if tensor in graph.groups:
        return [graph.groups[tensor]]
    raise PlanError(
        "A pruned parameter must be the weight of a layer that produces channels. Received "
        f"'{tensor}', which produces none. {nearest(tensor, layers)}"
    )


def free_groups(
    name: str, groups: Sequence[ChannelGroup], *, inexact: bool
) -> tuple[list[ChannelGroup], list[str]]:
    """Return the groups of a layer that may be cut, and a note on each of the others.

    Args:
        name: The name that the user gave.
        groups: What it means, from `groups_of`.
        inexact: Whether channels that an operation mixes may be removed.

    Raises:
        PlanError: None of them may be cut; the message has the reason of the first.
    """
    free = [g for g in groups if g.reason is None and (g.exact or inexact)]
    if not free:
        _refuse(name, groups[0])
    notes = [
        f"{group.size} channels of '{name}' stay: group '{group.name}' "
        + (group.reason or f"is mixed by {group.mixes[0]}, and inexact=True was not given")
        + "."
        for group in groups
        if group not in free
    ]
    return free, notes


def _refuse(name: str, group: ChannelGroup) -> NoReturn:
    if group.reason is not None:
        raise PlanError(
            f"'{name}' must be free to change its width. Received a layer of group '{group.name}', "
            f"which {group.reason}. Leave it out."
        )
    raise PlanError(
        f"'{name}' must be cut exactly. Received a layer of group '{group.name}', whose channels "
        f"are mixed by {group.mixes[0]}. Leave it out, or allow it with inexact=True."
    )


def kept_count(channels: int, ratio: float, round_to: int) -> int:
    """Return the number of channels that stay when a share of `ratio` is removed.

    It is rounded to a multiple of `round_to`.
    """
    stays = max(channels - round(channels * ratio), 1)
    if round_to > 1:
        stays = max(round(stays / round_to), 1) * round_to
    return min(stays, channels)


def _alone(group: ChannelGroup, layer: str, graph: ModelGraph) -> ChannelGroup:
    """Return the group as if only `layer`, with its own normalisation, produced the channels."""
    layer = layer.partition("[")[0]
    named = [member for member in group.producers() if member.tensor == layer]
    if not named:
        return group
    scales = normalisation_scales(group, graph.tensors)
    own = [_nearest_after(layer, scales, graph)] if scales else []
    left_out = {*group.producers(), *scales} - {*named, *own}
    return replace(group, members=tuple(m for m in group.members if m not in left_out))


def _nearest_after(layer: str, scales: tuple[Member, ...], graph: ModelGraph) -> Member:
    """Return the scale nearest to a layer in the module tree; of equals, the next declared one."""
    order = {name: place for place, name in enumerate(graph.tensors)}
    path = layer.split(".")

    def distance(scale: Member) -> tuple[int, bool, int]:
        other = scale.tensor.split(".")
        shared = len(list(takewhile(bool, map(eq, path, other))))
        steps = len(path) + len(other) - 2 * shared
        return (steps, order[scale.tensor] < order[layer], order[scale.tensor])

    return min(scales, key=distance)


def _highest(scores: Scores, count: int) -> tuple[int, ...]:
    """Return the indices of the `count` highest scores; of equals, the last ones."""
    return tuple(sorted(_rising(scores)[len(scores) - count :]))


def _rising(scores: Scores) -> tuple[int, ...]:
    return tuple(np.argsort(scores, kind="stable").tolist())
