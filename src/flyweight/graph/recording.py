"""Recordings of a module run once, on shapes alone where that is possible.

The run is on the meta device, where tensors have shapes and no values: it costs no arithmetic and
no memory. A module that asks for values (detectors choose among their proposals) is run on the
values of the example instead. Design note 0009 says why this and not `torch.export`; note 0015 how
one recorder serves traces, scans and repairs.
"""

from collections.abc import Callable, Container, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._pytree import tree_map_only

from flyweight.errors import GraphError
from flyweight.graph.containers import placed_tensors, tensors_in
from flyweight.graph.dispatch import name_of, plain_attention
from flyweight.graph.example_inputs import Example
from flyweight.graph.meta import result_of
from flyweight.graph.program import Call, Recording, Run
from flyweight.graph.recorder import Recorder, module_paths
from flyweight.graph.stored import copy_module, held_tensors, run_uncompiled

Watch = Callable[[Call], None]
"""Receives every call as it happens; what it raises ends the run."""


def record(
    model: nn.Module,
    args: tuple[Any, ...],
    whole: Container[str],
    kwargs: Mapping[str, Any] | None = None,
) -> Recording:
    """Run `model` on an example in evaluation mode and return what it executed.

    Args:
        model: Left as it was: a private copy that shares no state with it is run.
        args: Example inputs; tensors may be nested in lists, tuples and mappings.
        whole: Names of operations to record whole. Others are recorded in the parts that PyTorch
            composes them of, where it does.
        kwargs: Keyword inputs.

    Raises:
        GraphError: The module fails on these inputs; the message carries its reason.
    """
    example = Example(args, dict(kwargs or {}))
    lifeless = any(tensor.is_meta for _, tensor, _ in held_tensors(model))
    try:
        return Recording((run(private_copy(model, values=False), example, whole, values=False),))
    except Exception as shapes_alone:
        if lifeless or any(tensor.is_meta for _, tensor in example.tensors()):
            raise _failure(model, shapes_alone) from shapes_alone
    try:
        return Recording((run(private_copy(model, values=True), example, whole, values=True),))
    except Exception as error:
        raise _failure(model, error) from error


def _failure(model: nn.Module, error: Exception) -> GraphError:
    if isinstance(error, GraphError):
        return error
    reason = str(error).strip().split("\n")[0][:300] or type(error).__name__
    return GraphError(
        f"The model must run on the example inputs. Received from {type(model).__name__}: "
        f"{reason}. Give inputs of the shapes that its forward takes."
    )


def run(
    copy: nn.Module,
    example: Example,
    whole: Container[str],
    *,
    values: bool,
    watch: Watch | None = None,
) -> Run:
    """Run a private copy and return what it executed; see `record`.

    Args:
        copy: From `private_copy`, with the same `values`.
        example: What to call it with.
        whole: Names of operations to record whole.
        values: Whether to run on the values of the example.
        watch: Receives every call.

    Raises:
        GraphError: The module returned no tensors.
        Exception: Any error of the module or of `watch`.
    """
    given = example if values else example.mapped(_meta)
    # The meta device has no fused operations.
    attention = plain_attention(copy) if values else nullcontext()
    with module_paths(copy) as path, attention, torch.inference_mode():
        recorder = _ShapeRecorder(whole, path, watch, values=values)
        recorder.number_stored(copy)
        # Before the run: an operation that writes into an input would renumber it.
        inputs = {recorder.value(tensor).number: place for place, tensor in given.tensors()}
        with recorder:
            returned = copy(*given.args, **given.kwargs)
    outputs = tuple(recorder.value(tensor) for _, tensor in placed_tensors(returned))
    if not outputs:
        raise GraphError(
            f"A model must return tensors. Received {type(returned).__name__} from "
            f"{type(copy).__name__}. Trace a module that returns what it computes."
        )
    return Run(
        calls=tuple(recorder.calls),
        outputs=outputs,
        stored=recorder.stored,
        example=example.described(),
        inputs=inputs,
        on_values=values,
    )


def private_copy(model: nn.Module, *, values: bool) -> nn.Module:
    """Return a copy in evaluation mode to run, so that changes by `forward` are discarded.

    Args:
        model: What to copy.
        values: Whether the copy shares the parameters; otherwise it is on the meta device.
    """
    memo: dict[int, Any] = {}
    for _, tensor, _ in held_tensors(model):
        if not values:
            memo[id(tensor)] = _meta(tensor)
        elif isinstance(tensor, nn.Parameter):
            memo[id(tensor)] = tensor
    return run_uncompiled(copy_module(model, memo)).eval()


def _meta(tensor: Tensor) -> Tensor:
    if tensor.is_meta:
        return tensor
    twin = torch.empty_strided(
        tensor.shape, tensor.stride(), dtype=tensor.dtype, device=torch.device("meta")
    )
    return nn.Parameter(twin, requires_grad=False) if isinstance(tensor, nn.Parameter) else twin


class _ShapeRecorder(Recorder):  # type: ignore[no-untyped-call]
    """Executes operations on shapes where an argument is on the meta device."""

    def __init__(
        self, whole: Container[str], path: list[str], watch: Watch | None, *, values: bool
    ) -> None:
        super().__init__(whole, path)
        self._watch, self._values = watch, values

    def execute(self, func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the result of an operation, on the meta device if a part of it is there."""
        if self._values:
            return func(*args, **kwargs)
        on_meta = [tensor.is_meta for tensor in tensors_in((args, kwargs))]
        if not any(on_meta):
            return func(*args, **kwargs)
        if not all(on_meta):
            # Constants that the model made come to the meta device once they meet its tensors.
            args, kwargs = tree_map_only(Tensor, _meta, (args, kwargs))
        return result_of(name_of(func), func, args, kwargs)

    def after(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Hand the call to the watch."""
        if self._watch is not None:
            self._watch(call)
