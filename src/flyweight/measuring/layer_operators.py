"""Operators of a runtime's graph by the layers of a file that they compute."""

from collections.abc import Iterator, Sequence

from flyweight.measuring.file_layers import (
    FileGraph,
    Layer,
    followers,
    number_in,
    weight_of,
)
from flyweight.runtimes.protocol import OptimizedOperator

_MULTIPLYING = ("conv", "gemm", "matmul", "fullyconnected", "einsum", "lstm", "gru", "rnn", "atten")
"""Parts of the names of operators that compute layers, in both runtimes, in lower case."""


def operators_of(
    graph: FileGraph, operators: Sequence[OptimizedOperator]
) -> dict[Layer, OptimizedOperator]:
    """Return the operator that computes each layer; layers that none names are left out.

    An operator keeps the name of its layer, or the weight, or only the name of an operation after
    it that it computes as well, such as the activation. Names of earlier operations say nothing.

    Args:
        graph: The file.
        operators: The runtime's, of the renamed file.
    """
    free = {one.name: one for one in operators if _multiplies(one)}
    found: dict[Layer, OptimizedOperator] = {}
    for layer in graph.layers:
        _claim(free, found, layer, _by_number(free, layer.number))
    for layer in graph.layers:
        if layer not in found:
            _claim(free, found, layer, _by_weight(graph, free, layer))
    # From the last layer on: the quantizer before a layer may name its operator, and follows the
    # layer before.
    for layer in reversed(graph.layers):
        if layer not in found:
            _claim(free, found, layer, _by_follower(graph, free, layer))
    return found


def _claim(
    free: dict[str, OptimizedOperator],
    found: dict[Layer, OptimizedOperator],
    layer: Layer,
    operators: Iterator[OptimizedOperator],
) -> None:
    operator = next(operators, None)
    if operator is not None:
        found[layer] = free.pop(operator.name)


def _multiplies(operator: OptimizedOperator) -> bool:
    kind = operator.kind.lower()
    return any(part in kind for part in _MULTIPLYING)


def _by_number(free: dict[str, OptimizedOperator], number: int) -> Iterator[OptimizedOperator]:
    return (one for one in free.values() if number in number_in(" ".join(one.nodes)))


def _by_weight(
    graph: FileGraph, free: dict[str, OptimizedOperator], layer: Layer
) -> Iterator[OptimizedOperator]:
    weight = weight_of(graph.nodes[layer.number])
    if len(graph.takers.get(weight, ())) == 1 and weight in graph.stored:
        yield from (one for one in free.values() if weight in one.reads)


def _by_follower(
    graph: FileGraph, free: dict[str, OptimizedOperator], layer: Layer
) -> Iterator[OptimizedOperator]:
    node = graph.nodes[layer.number]
    yield from (one for one in free.values() if node.output[0] in one.nodes)
    for follower in followers(graph, node):
        yield from _by_number(free, number_in(follower.name)[0])
        yield from (one for one in free.values() if follower.output[0] in one.nodes)
