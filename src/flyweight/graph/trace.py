"""Traces of modules: operations, coupled channel groups and costs.

Recorded runs give every operation with its shapes; the rules carry channel identities through them
(design note 0002). The module is left as it was.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from flyweight.graph.entry import plain_module
from flyweight.graph.example_inputs import Example
from flyweight.graph.kept_results import results_kept, without_results
from flyweight.graph.model_graph import ModelGraph
from flyweight.graph.operations import operations_of
from flyweight.graph.program import RecordedRun, Run
from flyweight.graph.recording import Copies, record
from flyweight.graph.rules import WHOLE
from flyweight.graph.trial_cuts import followable
from flyweight.graph.walk import Walk

_MOST_NAMED = 3


def trace(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    *,
    also: Sequence[tuple[Any, ...] | Example] = (),
) -> ModelGraph:
    """Return the graph of `model` as it runs on an example.

    The model runs in evaluation mode, in training mode, and at another image size and batch size
    where it accepts these. A channel can be cut if all runs allow it. Operations and costs are
    those of the example in evaluation mode.

    Args:
        model: Any module that runs; it is not changed. It may live on the meta device, and so may
            the inputs.
        args: Example inputs, for example `(torch.rand(1, 3, 320, 320),)`. Sizes are taken as they
            are; the values matter only to a model that asks for them.
        kwargs: Example inputs by keyword, for example `{"mask": mask}`.
        also: Further examples, for code that the first one does not reach: inputs of another size,
            or the arguments of a training step. Each must run in evaluation or in training mode.

    Raises:
        GraphError: The module fails on these inputs; the message carries its reason.

    Example:
        >>> import torch
        >>> graph = trace(
        ...     nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)), (torch.rand(1, 3, 9, 9),)
        ... )
        >>> [(name, group.size) for name, group in graph.groups.items() if group.prunable]
        [('0.weight', 8)]
        >>> [operation.name for operation in graph.operations]
        ['0.conv2d', '1.conv2d']
    """
    model = plain_module(model)
    example = Example(args, dict(kwargs or {}))
    model = without_results(model, results_kept(model, lambda: example))
    more = [given if isinstance(given, Example) else Example(given) for given in also]
    copies = Copies(model)
    recording = record(model, args, WHOLE, kwargs, more, copies)
    walk = Walk(model, recording)
    walk.run()
    graph = followable(copies, walk, recording.runs, WHOLE)
    operations, outputs = operations_of(model, recording.evaluation)
    runs = _to_repeat(recording.runs, graph.cost().macs)
    notes = (*graph.notes, *recording.notes, *_unread(walk.unread()))
    return replace(graph, operations=operations, outputs=outputs, runs=runs, notes=notes)


def _to_repeat(runs: Sequence[Run], macs: int) -> tuple[RecordedRun, ...]:
    """Return the runs with their costs, which grow with the inputs."""
    sizes = [sum(tensor.numel() for _, tensor in run.example.tensors()) for run in runs]
    return tuple(
        RecordedRun(run.mode, run.example, macs * size // max(sizes[0], 1))
        for run, size in zip(runs, sizes, strict=True)
    )


def _unread(names: list[str]) -> list[str]:
    if not names:
        return []
    more = len(names) - _MOST_NAMED
    listed = ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
    note = (
        f"No run reads these parameters, so they keep their size: {listed}. If other code uses "
        "them, give an example that does: trace(..., also=[...])."
    )
    return [note]
