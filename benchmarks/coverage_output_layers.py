"""The layers that make the outputs of a network, which Torch-Pruning has to be told."""

from collections.abc import Iterator
from typing import Any

from coverage_case import Inputs
from coverage_oracle import call, values_in
from torch import nn

_PASSES = ("TBackward0", "PermuteBackward0", "TransposeBackward0", "ViewBackward0", "Expand")


def output_layers(model: nn.Module, inputs: Inputs) -> list[nn.Module]:
    """Return the layers with weights that lie between the outputs and every other layer.

    The graph of gradients is followed from each output up to the first layers with weights of two
    or more axes; sums and normalisations are passed.
    """
    owners = {
        id(parameter): module
        for module in model.modules()
        for parameter in module.parameters(recurse=False)
    }
    waiting = [value.grad_fn for value in values_in(call(model, inputs)) if value.requires_grad]
    seen, found = dict[int, Any](), dict[int, nn.Module]()
    while waiting:
        node = waiting.pop()
        if node is None or id(node) in seen:
            continue
        seen[id(node)] = node  # kept, because ids of objects that are gone come again
        weights = list(_weights_of(node))
        found.update({id(owners[key]): owners[key] for key in weights if key in owners})
        if not weights:
            waiting += [following for following, _ in node.next_functions]
    return list(found.values())


def _weights_of(node: Any) -> Iterator[int]:
    """Yield the ids of the parameters of two or more axes that a node reads directly."""
    for following, _ in node.next_functions:
        while following is not None and following.name().startswith(_PASSES):
            following = following.next_functions[0][0]
        variable = getattr(following, "variable", None)
        if variable is not None and variable.ndim > 1:
            yield id(variable)
