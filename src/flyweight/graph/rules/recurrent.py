"""The rule for recurrent layers, which PyTorch runs as one operation over all steps and layers."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from flyweight.graph.identity import Field, Flow, Ids
from flyweight.graph.step import CountedAxis, Step


def recurrent(step: Step) -> tuple[Flow, ...]:
    """LSTM, GRU and plain recurrent layers: hidden units leave every gate, layer and direction.

    Weights come as one flat list: for every layer and direction those of the input, those of the
    hidden state, and their biases. Units are removed from all layers, because the initial state is
    one tensor for all of them.
    """
    source, arguments = step.flow("input"), step.arguments
    states = arguments["hx"] if isinstance(arguments["hx"], list) else [arguments["hx"]]
    directions = 2 if arguments["bidirectional"] else 1
    each = 4 if arguments["has_biases"] else 2
    cells = [_cell(flows) for flows in _rows(arguments["params"], each)]
    last = len(source.shape) - 1
    inputs, units = step.single(source, last), None
    positions = math.prod(source.shape[:-1])
    for layer in _rows(cells, directions):
        made = []
        for cell in layer:
            hidden = _join_cell(step, cell, inputs, positions)
            units = hidden if units is None else units
            step.identities.join(units, hidden)
            made.append(hidden)
        inputs = np.concatenate(made)
    for state in states:
        step.join(step.single(state, len(state.shape) - 1), units)
    return tuple(
        Flow(shape, (Field((len(shape) - 1,), inputs if place == 0 else units),))  # type: ignore[arg-type]
        for place, shape in enumerate(step.shapes)
    )


def _rows(flat: Sequence[Any], length: int) -> Iterator[tuple[Any, ...]]:
    if len(flat) % length:
        raise ValueError("the weights of a recurrent layer must come in equal rows")
    for start in range(0, len(flat), length):
        yield tuple(flat[start : start + length])


def _cell(flows: tuple[Any, ...]) -> tuple[Any, ...]:
    by_input, by_state = flows[:2]
    if by_state.shape[0] % by_state.shape[1] or by_input.shape[0] != by_state.shape[0]:
        raise ValueError("a recurrent layer with a projection is not followed")
    return flows


def _join_cell(step: Step, cell: tuple[Any, ...], inputs: Ids | None, positions: int) -> Ids:
    """Join the gates of one layer and direction; return the identities of its units."""
    by_input, by_state, *biases = cell
    units, reads = step.single(by_state, 1), step.single(by_input, 1)
    if units is None:
        raise ValueError("a recurrent layer of a single unit is not followed")
    step.join(inputs, reads)
    if reads is not None:
        step.ledger.consumed.append(reads)
    step.ledger.consumed.append(units)
    for flow in (by_input, by_state, *biases):
        gates = step.single(flow, 0)
        if gates is not None:
            step.identities.join(gates.reshape(-1, len(units)), units[None, :])
            if len(flow.shape) > 1:
                step.ledger.produced.append(gates)
    for weight, read in ((by_input, reads), (by_state, units)):
        made = step.single(weight, 0)
        axes = (CountedAxis(weight.shape[0], made), CountedAxis(weight.shape[1], read))
        step.count(positions, axes)
    return units
