"""`models` and `params`: look before cutting."""

from collections.abc import Sequence
from typing import Any

from flyweight.cli.console import columns, show, show_json
from flyweight.graph import ChannelGroup, ModelGraph
from flyweight.recipe.config import known_configs, load_config
from flyweight.recipe.cut import trace_model, weightless
from flyweight.zoo import SPECS


def models(*, as_json: bool) -> None:
    """List the zoo and the built-in configs."""
    if as_json:
        rows = {spec.name: {"task": spec.task, "summary": spec.summary} for spec in SPECS.values()}
        show_json({"models": rows, "configs": list(known_configs())})
        return
    show("models")
    show("\n".join(f"  {spec.name}  ({spec.task}) {spec.summary}" for spec in SPECS.values()))
    show("\nconfigs (for -c)")
    show("\n".join(f"  {name}" for name in known_configs()))


def print_params(name: str, overrides: Sequence[str]) -> None:
    """List parameter names and shapes in the originals' format."""
    _, config = load_config(name, overrides)
    for parameter, tensor in weightless(config).named_parameters():
        show(f"parameter name: {parameter}\tshape: {tuple(tensor.shape)}")


def params(name: str, overrides: Sequence[str], weights: str, *, as_json: bool) -> None:
    """List groups as a tree: who makes the channels, who reads them, what follows."""
    from flyweight.recipe.session import load_model, weights_path

    _, config = load_config(name, overrides)
    path = weights or config.weights
    model = load_model(weights_path(path), config)[0] if path else weightless(config)
    graph = trace_model(model, config.preprocessing)
    if as_json:
        show_json(_record(graph))
        return
    show(_tree(graph))


def _record(graph: ModelGraph) -> dict[str, Any]:
    return {
        "parameters": {name: list(tensor.shape) for name, tensor in graph.tensors.items()},
        "groups": {
            name: {
                "channels": group.size,
                "prunable": group.prunable,
                "reason": _reason(group),
                "members": [[m.tensor, m.axis, m.role] for m in group.members],
            }
            for name, group in graph.groups.items()
        },
    }


def _tree(graph: ModelGraph) -> str:
    lines = []
    for name, group in graph.groups.items():
        reason = _reason(group)
        lines.append(f"{name}  {group.size} channels" + (f"  frozen: {reason}" if reason else ""))
        rows = [
            (
                f"   {'├' if place < len(group.members) else '└'} {member.role:<8} {member.tensor}",
                f"axis {member.axis}",
                str(tuple(graph.tensors[member.tensor].shape)),
            )
            for place, member in enumerate(group.members, start=1)
        ]
        lines += [columns(rows)] if rows else []
    prunable = len(graph.prunable())
    cost = graph.cost()
    lines.append(
        f"\n{len(graph.groups)} groups, {prunable} prunable; {cost.params:,} parameters, "
        f"{cost.macs / 1e9:.4f} GMACs"
    )
    return "\n".join(lines)


def _reason(group: ChannelGroup) -> str | None:
    if group.reason is not None:
        return group.reason
    if group.mixes:
        more = f" and {len(group.mixes) - 1} more" if len(group.mixes) > 1 else ""
        return f"its channels are mixed by {group.mixes[0]}{more}"
    return None
