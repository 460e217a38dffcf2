"""`flyweight params`: a network's parameters, channel groups, and why a group is frozen."""

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flyweight import pipeline
from flyweight.cli import heavy
from flyweight.cli.console import say, show_json, show_styled
from flyweight.cli.options import ConfigName, Json, Overrides, Weights
from flyweight.pipeline.preflight import weights_path

if TYPE_CHECKING:
    from flyweight.graph import ModelGraph

HALF = 0.5
"""Ratio at which exact and other cuts are compared."""

Complete = Annotated[
    bool, typer.Option("--all", help="Show complete lists; long ones are shortened otherwise.")
]


def params(
    config: ConfigName,
    opt: Overrides = None,
    weights: Weights = "",
    complete: Complete = False,
    json: Json = False,
) -> None:
    """List channel groups and why some are frozen.

    Channels that can only be removed together form a group. Each group is shown as a tree: the
    parameters that produce its channels and the parameters that consume them.
    """
    _, settings = pipeline.load_config(config, opt or ())
    given = weights or settings.weights
    path = weights_path(given) if given else None
    model = heavy.load_model(path, settings)[0] if path else heavy.weightless(settings)
    graph = heavy.trace_model(model, settings.preprocessing)
    if json:
        show_json(_record(graph))
    else:
        show_styled(partial(heavy.group_tree, graph, complete=complete))
        for note in graph.notes:
            say(f"note: {note}")
        for note in heavy.mixed_notes(graph, HALF):
            say(f"note: at ratio {HALF:g} of every group, {note}")


def _record(graph: "ModelGraph") -> dict[str, Any]:
    return {
        "parameters": {name: list(tensor.shape) for name, tensor in graph.tensors.items()},
        "groups": {
            name: {
                "channels": group.size,
                "prunable": group.prunable,
                "exact": group.exact,
                "reason": heavy.reason_of(group),
                "mixes": list(group.mixes),
                "members": [[m.tensor, m.axis, m.role] for m in group.members],
            }
            for name, group in graph.groups.items()
        },
        "notes": [*graph.notes, *heavy.mixed_notes(graph, HALF)],
    }
