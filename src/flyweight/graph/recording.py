"""Recordings of a module that runs a few times, on shapes alone where that is possible.

It runs in evaluation and in training mode, and at another size (design note 0022). A run is on the
meta device, where tensors have shapes and no values: it costs no arithmetic and no memory. A module
that asks for values (detectors choose among their proposals) runs on the values of the example
instead. Design note 0009 says why this and not `torch.export`; note 0015 how one recorder serves
traces, scans and repairs.
"""

from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._pytree import tree_map_only

from flyweight.errors import GraphError
from flyweight.graph.containers import placed_tensors, tensors_in
from flyweight.graph.dispatch import name_of, plain_attention
from flyweight.graph.example_inputs import Example
from flyweight.graph.isolation import isolated
from flyweight.graph.meta import result_of
from flyweight.graph.program import Call, Mode, Recording, Run
from flyweight.graph.random_states import own_random_numbers
from flyweight.graph.recorder import Recorder, module_paths
from flyweight.graph.stored import (
    clone_structure,
    copy_module,
    held_tensors,
    holds_plain_values,
    run_uncompiled,
)
from flyweight.graph.variants import doubled, variants

Watch = Callable[[Call], None]
"""Receives every call as it happens; what it raises ends the run."""
Begun = Callable[[Recorder], None]
"""Receives the recorder before the model runs, for hooks of the copy that ask it for numbers."""

_MOST_KNOWN = 1 << 16
"""Largest tensor of `Call.known`, in values."""
_MOST_ON_VALUES = 4
"""Other sizes that are tried where the code runs on values alone."""


def record(
    model: nn.Module,
    args: tuple[Any, ...],
    whole: Container[str],
    kwargs: Mapping[str, Any] | None = None,
    also: Sequence[Example] = (),
    copies: "Copies | None" = None,
) -> Recording:
    """Run `model` on an example and return what it executed.

    The first run is in evaluation mode. Further runs are in training mode and, in evaluation mode,
    at another image size and batch size, where the module accepts that.

    Args:
        model: Left as it was: a private copy that shares no state with it is run.
        args: Example inputs; tensors may be nested in lists, tuples and mappings.
        whole: Names of operations to record whole. Others are recorded in the parts that PyTorch
            composes them of, where it does.
        kwargs: Keyword inputs.
        also: Further examples; each must run in one of the two modes.
        copies: Of the model; for a caller who runs copies as well.

    Raises:
        GraphError: The module fails on these inputs; the message carries its reason.
    """
    example = Example(args, dict(kwargs or {}))
    copies = copies or Copies(model)
    first = _first(model, example, whole, copies)
    runs, notes = [first], []

    def attempt(given: Example, mode: Mode, values: bool = first.on_values) -> Exception | None:
        found = copies.run(given, whole, values=values, mode=mode)
        if isinstance(found, Run):
            runs.append(found)
            return None
        return found

    # Normalisation over a batch refuses a single value.
    failure = attempt(example, "training") and attempt(doubled(example), "training")
    if failure is not None and not (_is_lifeless(model) or _is_lifeless(example)):
        # Training may ask for values where evaluation does not.
        failure = attempt(doubled(example), "training", values=True)
    for given in also:
        wrong = attempt(given, "evaluation")
        failed = attempt(given, "training")
        if wrong is not None and failed is not None:
            raise _failure(model, wrong) from wrong
        failure = failure if failed is not None else None
    if failure is not None:
        notes.append(
            f"The network was not recorded in training mode, in which it fails: {_text(failure)}. "
            "Operations that run in training only were not seen. Give an example for training: "
            "trace(..., also=[...])."
        )
    sizes = _tried(list(variants(example)), values=first.on_values)
    others = (copies.run(given, whole, values=first.on_values) for given in sizes)
    other = next((run for run in others if isinstance(run, Run) and _accepts(run, first)), None)
    found = (*runs, replace(other, resized=True)) if other else tuple(runs)
    return Recording(found, tuple(notes))


def _tried(sizes: Sequence[Example], *, values: bool) -> Sequence[Example]:
    """Return the sizes to try: all on shapes; on values, which are slow, few and a batch alone."""
    few = values and len(sizes) > _MOST_ON_VALUES
    return [*sizes[: _MOST_ON_VALUES - 1], sizes[-1]] if few else sizes


def _first(model: nn.Module, example: Example, whole: Container[str], copies: "Copies") -> Run:
    found = copies.run(example, whole, values=False)
    if not isinstance(found, Run) and not (_is_lifeless(model) or _is_lifeless(example)):
        found = copies.run(example, whole, values=True)
    if isinstance(found, Run):
        return found
    raise _failure(model, found) from found


def _is_lifeless(held: nn.Module | Example) -> bool:
    """Whether a module or an example has shapes alone."""
    if isinstance(held, Example):
        return any(tensor.is_meta for _, tensor in held.tensors())
    return any(tensor.is_meta for _, tensor, _ in held_tensors(held))


class Copies:
    """Private copies of a module, each to be run once.

    Attributes:
        model: The module; it is not changed.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._plain = holds_plain_values(model)
        self._shapes: nn.Module | None = None

    def run(
        self, example: Example, whole: Container[str], *, values: bool, mode: Mode = "evaluation"
    ) -> Run | Exception:
        """Return the run of a copy, or why the module does not run so."""
        try:
            copy = self.make(values=values, mode=mode)
            return run(copy, example, whole, values=values, mode=mode)
        except Exception as error:  # noqa: BLE001 - any error means that the module does not run so
            return error

    def make(self, *, values: bool, mode: Mode) -> nn.Module:
        """Return a copy as `private_copy` does, and faster."""
        if values or not self._plain:
            return private_copy(self.model, values=values, mode=mode)
        # Without values nothing can be written into a tensor, so all copies share them.
        self._shapes = self._shapes or _on_meta(clone_structure(self.model))
        return clone_structure(self._shapes).train(mode == "training")


def _accepts(other: Run, first: Run) -> bool:
    """Whether the outputs at another size are of the same kind as the first ones."""
    return _of_the_batch(other) == _of_the_batch(first)


def _of_the_batch(run: Run) -> list[tuple[int, bool]]:
    """Return of every output its number of axes, and whether the first one is the batch.

    A view that is written for one size may accept another and put rows of two images into one.
    """
    batch = next((tensor.shape[:1] for _, tensor in run.example.tensors()), None)
    return [(len(value.shape), value.shape[:1] == batch) for value in run.outputs]


def _failure(model: nn.Module, error: Exception) -> GraphError:
    if isinstance(error, GraphError):
        return error
    return GraphError(
        f"The model must run on the example inputs. Received from {type(model).__name__}: "
        f"{_text(error)}. Give inputs of the shapes that its forward takes."
    )


def _text(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300].rstrip(".")


def run(
    copy: nn.Module,
    example: Example,
    whole: Container[str],
    *,
    values: bool,
    mode: Mode = "evaluation",
    watch: Watch | None = None,
    begun: Begun | None = None,
) -> Run:
    """Run a private copy on an example and return what it executed.

    Args:
        copy: From `private_copy`, with the same `values` and `mode`.
        example: The inputs.
        whole: Names of operations to record whole.
        values: Whether to run on the values of the example.
        mode: The mode that the copy is in.
        watch: Receives every call.
        begun: Receives the recorder.

    Raises:
        GraphError: The module returned no tensors.
        Exception: Any error of the module or of `watch`.
    """
    # Copies, because a forward may write into its inputs.
    given = example.mapped(_cloned if values else _meta)
    # The meta device has no fused operations.
    attention = plain_attention(copy) if values else nullcontext()
    with module_paths(copy) as path, attention, torch.inference_mode():
        recorder = _ShapeRecorder(whole, path, watch, values=values)
        recorder.number_stored(copy)
        if begun is not None:
            begun(recorder)
        # Before the run: an operation that writes into an input would renumber it.
        inputs = {recorder.value(tensor).number: place for place, tensor in given.tensors()}
        isolation = isolated(copy, lambda tensor: recorder.number_of(tensor) is not None)
        # Random numbers that the code draws must not change those that the user draws next.
        with isolation, own_random_numbers(), recorder:
            returned = copy(*given.args, **given.kwargs)
    outputs = tuple(recorder.value(tensor) for _, tensor in placed_tensors(returned))
    left = (recorder.value(tensor) for _, tensor in given.tensors())
    if not outputs:
        raise GraphError(
            f"A model must return tensors. Received {type(returned).__name__} from "
            f"{type(copy).__name__}. Trace a module that returns what it computes."
        )
    return Run(
        calls=tuple(recorder.calls),
        outputs=outputs,
        left=tuple(value for value in left if value.number not in inputs),
        stored=recorder.stored,
        mode=mode,
        example=example,
        inputs=inputs,
        on_values=values,
    )


def private_copy(model: nn.Module, *, values: bool, mode: Mode = "evaluation") -> nn.Module:
    """Return a copy in evaluation mode to run, so that changes by `forward` are discarded.

    Args:
        model: What to copy.
        values: Whether the copy shares the parameters; otherwise it is on the meta device.
        mode: The mode of the copy.
    """
    memo: dict[int, Any] = {}
    for _, tensor, _ in held_tensors(model):
        if not values:
            memo[id(tensor)] = _meta(tensor)
        elif isinstance(tensor, nn.Parameter):
            memo[id(tensor)] = tensor
    return run_uncompiled(copy_module(model, memo)).train(mode == "training")


def _on_meta(copy: nn.Module) -> nn.Module:
    """Give a copy that shares its tensors shapes instead."""
    shapes: dict[int, Tensor] = {}
    for _, tensor, holder in list(held_tensors(copy)):
        if id(tensor) not in shapes:
            shapes[id(tensor)] = _meta(tensor)
        holder.put(shapes[id(tensor)])
    return copy


def _cloned(tensor: Tensor) -> Tensor:
    return tensor.detach().clone()


def _meta(tensor: Tensor) -> Tensor:
    if tensor.is_meta:
        return tensor
    twin = torch.empty_strided(
        tensor.shape, tensor.stride(), dtype=tensor.dtype, device=torch.device("meta")
    )
    return nn.Parameter(twin, requires_grad=False) if isinstance(tensor, nn.Parameter) else twin


@cache
def _draws(func: OpOverload) -> bool:
    """Whether an operation draws random numbers."""
    return torch.Tag.nondeterministic_seeded in func.tags


class _ShapeRecorder(Recorder):  # type: ignore[no-untyped-call]
    """Executes operations on shapes where an argument is on the meta device."""

    def __init__(
        self, whole: Container[str], path: list[str], watch: Watch | None, *, values: bool
    ) -> None:
        super().__init__(whole, path)
        self._watch, self._values = watch, values
        self._known: tuple[Tensor, ...] = ()
        self._random: set[int] = set()

    def execute(self, func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the result of an operation, on the meta device if a part of it is there."""
        self._known = ()
        if self._values:
            return func(*args, **kwargs)
        taken = list(tensors_in((args, kwargs)))
        constants = [tensor for tensor in taken if not tensor.is_meta]
        if len(constants) == len(taken):
            return func(*args, **kwargs)
        if constants:
            # Constants that the model made come to the meta device once they meet its tensors.
            self._known = tuple(tensor for tensor in constants if self._is_fixed(tensor))
            args, kwargs = tree_map_only(Tensor, _meta, (args, kwargs))
        return result_of(name_of(func), func, args, kwargs)

    def _is_fixed(self, constant: Tensor) -> bool:
        """Whether another run must compute the same values; large tensors are not kept."""
        return constant.numel() <= _MOST_KNOWN and self.number_of(constant) not in self._random

    def known(self) -> tuple[Tensor, ...]:
        """Return the constants among the arguments of the operation executed last."""
        return self._known

    def after(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Hand the call to the watch."""
        if _draws(call.func) or not self._random.isdisjoint(call.reads):
            self._random.update(call.makes)
        if self._watch is not None:
            self._watch(call)
