"""`models` and `params`: look before cutting."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from flyweight.cli.console import show, show_json, show_styled
from flyweight.config.settings import known_configs, load_config
from flyweight.pipeline.preflight import weights_path

if TYPE_CHECKING:
    from flyweight.graph import ModelGraph


def models(*, as_json: bool) -> None:
    """List the zoo and the built-in configs."""
    from flyweight.zoo import SPECS
    from flyweight.zoo.sources.libraries import LIBRARIES

    if as_json:
        rows = {spec.name: {"task": spec.task, "summary": spec.summary} for spec in SPECS.values()}
        show_json({"models": rows, "configs": list(known_configs())})
        return
    show("models")
    show("\n".join(f"  {spec.name}  ({spec.task}) {spec.summary}" for spec in SPECS.values()))
    show(f"  {', '.join(f'{library}/NAME' for library in LIBRARIES)}  of other libraries")
    show("  package.module:function  your own")
    show("\nconfigs (for -c)")
    show("\n".join(f"  {name}" for name in known_configs()))


def print_params(name: str, overrides: Sequence[str]) -> None:
    """List parameter names and shapes in the originals' format."""
    _, config = load_config(name, overrides)

    from flyweight.pipeline.network_plans import weightless

    for parameter, tensor in weightless(config).named_parameters():
        show(f"parameter name: {parameter}\tshape: {tuple(tensor.shape)}")


def params(
    name: str, overrides: Sequence[str], weights: str, *, whole: bool, as_json: bool
) -> None:
    """List groups as a tree: who makes the channels, who reads them, what follows."""
    _, config = load_config(name, overrides)
    given = weights or config.weights
    path = weights_path(given) if given else None

    from flyweight.cli.tree import tree
    from flyweight.pipeline.inputs import load_model
    from flyweight.pipeline.network_plans import trace_model, weightless

    model = load_model(path, config)[0] if path else weightless(config)
    graph = trace_model(model, config.preprocessing)
    if as_json:
        show_json(_record(graph))
    else:
        show_styled(partial(tree, graph, whole=whole))


def _record(graph: "ModelGraph") -> dict[str, Any]:
    from flyweight.cli.tree import reason_of

    return {
        "parameters": {name: list(tensor.shape) for name, tensor in graph.tensors.items()},
        "groups": {
            name: {
                "channels": group.size,
                "prunable": group.prunable,
                "exact": group.exact,
                "reason": reason_of(group),
                "mixes": list(group.mixes),
                "members": [[m.tensor, m.axis, m.role] for m in group.members],
            }
            for name, group in graph.groups.items()
        },
    }
