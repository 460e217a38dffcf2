"""Runs that stop at layers: what every layer reads, all at once or one layer after the other.

Layers are identified by the weight that an operation takes, not by module: functional code and
layers that pad by themselves are seen as they compute.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only
from torch.utils.weak import TensorWeakRef

from flyweight.graph.dispatch import bound
from flyweight.graph.example_inputs import tensors_in
from flyweight.graph.program import Call
from flyweight.graph.recorder import Recorder
from flyweight.graph.rules import WHOLE

Batch = tuple[Any, ...]
"""The arguments of one call of a model."""

KEEP_BYTES = 2 << 30
"""How many bytes of intermediate tensors `Lockstep` keeps, in all."""


@dataclass(frozen=True, eq=False)
class Read:
    """One operation that takes a watched tensor.

    Attributes:
        tensor: Its name.
        op: The ATen operation, for example `conv2d`.
        arguments: By schema name, defaults included.
        result: What it returned; `None` where it was not run.
    """

    tensor: str
    op: str
    arguments: Mapping[str, Any]
    result: Any = None


def as_batch(value: Any) -> Batch:
    """Return the arguments of the model for one item of an iterable of batches."""
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def watch(
    model: nn.Module,
    batch: Batch,
    tensors: Mapping[str, Tensor],
    on_read: Callable[[Read], object],
    last: str | None = None,
) -> Any:
    """Run `model` once and report every operation that takes one of `tensors`.

    Args:
        model: In evaluation mode; call inside `dispatch.evaluating`.
        batch: Its arguments.
        tensors: What to watch, by name.
        on_read: Called after each of these operations, in order of execution.
        last: Stop after this tensor was read.

    Returns:
        What the model returned, or nothing if it was stopped.
    """
    watcher = _Watcher(tensors, on_read, last)
    try:
        with watcher:
            return model(*batch)
    except _ReachedError:
        return None


def sole_readers(
    model: nn.Module, batch: Batch, tensors: Mapping[str, Tensor]
) -> tuple[tuple[Read, ...], dict[str, Tensor]]:
    """Return all reads of `tensors` in order, and the norms that alone take a layer's result.

    Args:
        model: In evaluation mode; call inside `dispatch.evaluating`.
        batch: Its arguments.
        tensors: What to watch, by name.

    Returns:
        The reads, with biases and running statistics as their only tensors; and, by the name of a
        watched tensor, the running mean of the one batch normalisation that takes the result of the
        operation that read it, if nothing else does.
    """
    reads: list[Read] = []
    made: dict[str, list[int]] = {}

    def note(read: Read) -> None:
        # Without the tensors of the run, which would all be kept to its end otherwise.
        reads.append(_without_results(read))
        made.setdefault(read.tensor, []).extend(watcher.calls[-1].makes)

    watcher = _Watcher(tensors, note)
    with watcher:
        returned = model(*batch)
    readers: dict[int, list[Call | None]] = {}
    for call in watcher.calls:
        for number in call.reads:
            readers.setdefault(number, []).append(call)
    for tensor in tensors_in(returned):
        readers.setdefault(watcher.value(tensor).number, []).append(None)
    means = {watcher.value(tensor).number: tensor for tensor in model.buffers()}
    sole: dict[str, Tensor] = {}
    for name, numbers in made.items():
        taking = [reader for number in numbers for reader in readers.get(number, [])]
        mean = _running_mean(taking[0]) if len(taking) == 1 else None
        if mean is not None:
            sole[name] = means[mean]
    return tuple(reads), sole


def _without_results(read: Read) -> Read:
    arguments = {
        name: None if isinstance(value, Tensor) and not _is_small(name) else value
        for name, value in read.arguments.items()
    }
    return Read(read.tensor, read.op, arguments)


def _is_small(argument: str) -> bool:
    return argument == "bias" or "running" in argument


def _running_mean(call: Call | None) -> int | None:
    """Return the number of the running mean that a batch normalisation in evaluation takes."""
    if call is None or call.op != "batch_norm" or call.arguments["training"]:
        return None
    mean = call.arguments["running_mean"]
    return None if mean is None else int(mean.number)


class _ReachedError(Exception):
    """Ends a run that came as far as it should."""


class _Watcher(Recorder):  # type: ignore[no-untyped-call]
    """Reports the operations that take one of some tensors."""

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        on_read: Callable[[Read], object],
        last: str | None = None,
    ) -> None:
        super().__init__(WHOLE)
        self._names = {self.value(tensor).number: name for name, tensor in tensors.items()}
        self._on_read, self._last = on_read, last

    def after(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Report the call if it takes a watched tensor."""
        found = [self._names[number] for number in call.reads if number in self._names]
        if not found:
            return
        arguments = bound(call.func, args, kwargs)
        for name in found:
            self._on_read(Read(name, call.op, arguments, result))
        if self._last in found:
            raise _ReachedError


class Lockstep:
    """A run of a network over batches that halts at one layer after the other.

    All batches reach a layer before any passes it, so a layer can be changed when everything that
    it will read is known, and what follows computes with the changed one. Every operation is
    executed once per batch: to continue, the model's code runs from its start, and an operation
    that was executed before returns its earlier result, or a tensor without values where nothing
    needs that result any more. Where results take more than `keep_bytes`, or the code asks for a
    value that is gone, a batch is executed from its start again.

    Args:
        model: In evaluation mode; use inside `dispatch.evaluating`.
        batches: Arguments of its calls; the tensors must not be changed meanwhile.
        keep_bytes: What may be kept of all batches together.
    """

    def __init__(
        self, model: nn.Module, batches: Sequence[Batch], keep_bytes: int = KEEP_BYTES
    ) -> None:
        self.executed = 0
        self._model, self._batches, self._keep_bytes = model, batches, keep_bytes
        self._done: list[list[_Done]] = [[] for _ in batches]
        self._bytes = [0] * len(batches)

    def until(self, tensor: Tensor) -> Iterator[Mapping[str, Any]]:
        """Run every batch up to the operation that takes `tensor`; yield its arguments.

        Layers must be requested in the order of their execution, each once.

        Raises:
            RuntimeError: A run ended without taking it.
        """
        for index, batch in enumerate(self._batches):
            yield self._advance(index, batch, tensor)

    def _advance(self, index: int, batch: Batch, tensor: Tensor) -> Mapping[str, Any]:
        done, self._done[index] = self._done[index], []
        if done:
            try:
                return self._run(index, batch, _Stepper(tensor, done))
            except (RuntimeError, ValueError, TypeError, IndexError, _LostError):
                pass  # The code reads a value that no longer exists.
        return self._run(index, batch, _Stepper(tensor, []))

    def _run(self, index: int, batch: Batch, stepper: "_Stepper") -> Mapping[str, Any]:
        replayed = len(stepper.done)
        try:
            with stepper:
                self._model(*batch)
        except _ReachedError:
            pass
        finally:
            self.executed += len(stepper.done) - replayed
        if stepper.arrived is None:
            raise RuntimeError(f"{type(self._model).__name__} never takes the requested tensor")
        self._bytes[index] = 0
        if sum(self._bytes) + stepper.bytes <= self._keep_bytes:
            self._bytes[index], self._done[index] = stepper.bytes, stepper.done
        return stepper.arrived


class _LostError(Exception):
    """A replayed run does not do what it did before."""


class _Slot:
    """A tensor that an executed operation returned: itself while it is needed, then its shape."""

    def __init__(self, tensor: Tensor) -> None:
        self.shape, self.stride, self.dtype = tensor.shape, tensor.stride(), tensor.dtype
        self.weak = TensorWeakRef(tensor)
        self.kept: Tensor | None = None

    def keep(self) -> Tensor | None:
        """Hold the tensor if the halted run still does."""
        self.kept = self.weak()
        return self.kept

    def give(self) -> Tensor:
        """Return the tensor and release it; of one no longer needed, a tensor without values."""
        if self.kept is None:
            return torch.empty_strided(
                self.shape, self.stride, dtype=self.dtype, device=torch.device("meta")
            )
        tensor, self.kept = self.kept, None
        self.weak = TensorWeakRef(tensor)
        return tensor


@dataclass(frozen=True, eq=False)
class _Done:
    """An executed operation and its result, tensors as slots."""

    func: OpOverload
    result: Any


class _Stepper(Recorder):  # type: ignore[no-untyped-call]
    """Hands out the results of what is done, executes the rest, stops where a tensor is taken."""

    def __init__(self, target: Tensor, done: list[_Done]) -> None:
        super().__init__(WHOLE)
        self.target, self.done = target, done
        self.arrived: Mapping[str, Any] | None = None
        self.bytes = 0
        self._replayed = len(done)

    def execute(self, func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the result that the operation had, or execute it."""
        place = len(self.calls)
        if place < self._replayed:
            return self._replay(self.done[place], func)
        taken = list(tensors_in((args, kwargs)))
        if any(tensor is self.target for tensor in taken):
            self.arrived = bound(func, args, kwargs)
            self._require_values(taken)
            self.bytes = self._keep()  # The code's own variables are gone once this is raised.
            raise _ReachedError
        result = func(*args, **kwargs)
        self._require_values([*taken, *tensors_in(result)])
        self.done.append(_Done(func, tree_map_only(Tensor, _Slot, result)))
        return result

    def _keep(self) -> int:
        """Hold what the halted run still needs; return its bytes."""
        sizes: dict[int, int] = {}
        for done in self.done:
            for slot in tree_leaves(done.result):
                tensor = slot.keep() if isinstance(slot, _Slot) else None
                if tensor is not None:
                    storage = tensor.untyped_storage()
                    sizes[storage.data_ptr()] = storage.nbytes()
        return sum(sizes.values())

    def _replay(self, done: _Done, func: OpOverload) -> Any:
        if done.func is not func:
            raise _LostError
        if isinstance(done.result, _Slot):
            return done.result.give()
        return tree_map(lambda leaf: leaf.give() if isinstance(leaf, _Slot) else leaf, done.result)

    def _require_values(self, tensors: list[Tensor]) -> None:
        if self._replayed and any(tensor.is_meta for tensor in tensors):
            raise _LostError
