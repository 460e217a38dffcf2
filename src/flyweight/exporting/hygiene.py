"""Operations and texts that must not be left in an exported graph."""

from typing import Any

# Operators with constant weights that can absorb a batch normalisation that follows them.
_ABSORBS_NORMALIZATION = frozenset({"Conv", "ConvTranspose", "Gemm"})
_TRAINING_ONLY = frozenset({"Dropout", "Bernoulli", "RandomNormalLike", "RandomUniformLike"})


def leftovers(model: Any) -> tuple[str, ...]:
    """Return the operations that an inference graph should not contain, as text; empty if clean.

    Args:
        model: An `onnx.ModelProto`.
    """
    nodes = list(model.graph.node)
    producers = {output: node for node in nodes for output in node.output}
    readers = {output.name: 1 for output in model.graph.output}
    for node in nodes:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    found = []
    for node in nodes:
        if node.op_type in _TRAINING_ONLY or _attribute(node, "training_mode"):
            found.append(f"training operation {node.op_type} '{node.name}'")
        elif node.op_type == "BatchNormalization":
            before = producers.get(node.input[0])
            if before is not None and _can_absorb(before, readers, producers):
                found.append(f"unfolded BatchNormalization '{node.name}' after '{before.name}'")
    return tuple(found)


def strip_traces(model: Any) -> None:
    """Remove the stack traces that the exporter leaves on nodes; they contain paths."""
    graphs = [model.graph, *model.functions]
    while graphs:
        graph = graphs.pop()
        for node in graph.node:
            node.ClearField("metadata_props")
            node.ClearField("doc_string")
            graphs.extend(item.g for item in node.attribute if item.HasField("g"))
        for group in ("value_info", "input", "output", "initializer"):
            for item in getattr(graph, group, ()):
                if hasattr(item, "metadata_props"):
                    item.ClearField("metadata_props")


def _can_absorb(node: Any, readers: dict[str, int], producers: dict[str, Any]) -> bool:
    if node.op_type not in _ABSORBS_NORMALIZATION or node.input[1] in producers:
        return False  # Weights that other nodes compute are not constant.
    # Weights that several nodes share would have to be stored once for each.
    return readers.get(node.output[0]) == 1 and readers.get(node.input[1]) == 1


def _attribute(node: Any, name: str) -> int:
    return next((item.i for item in node.attribute if item.name == name), 0)
