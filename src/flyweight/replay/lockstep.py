"""Run a network and look at what its layers read: all of them at once, or one after the other.

Layers are told apart by the weight that an operation takes, not by module: functional code and
layers that pad by themselves are seen as they compute. Inference mode shows operations whole.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only
from torch.utils.weak import TensorWeakRef, WeakIdKeyDictionary

from flyweight.graph.dispatch import Dispatch, bound, name_of
from flyweight.graph.inputs import tensors_in

Batch = tuple[Any, ...]
"""The arguments of one call of a model."""

KEEP_BYTES = 2 << 30
"""How much of what is computed so far `Lockstep` keeps, in all."""


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
    """Return the arguments that one item of an iterable of batches stands for."""
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def watch(
    model: nn.Module,
    batch: Batch,
    tensors: Mapping[str, Tensor],
    told: Callable[[Read], object],
    last: str | None = None,
) -> Any:
    """Run `model` once and tell every operation that takes one of `tensors`.

    Args:
        model: In evaluation mode; call inside `evaluating`.
        batch: Its arguments.
        tensors: What to watch, by name.
        told: Called after each of these operations, in order of execution.
        last: Stop after this tensor was read.

    Returns:
        What the model returned, or nothing if it was stopped.
    """
    watcher = _Watcher({id(tensor): name for name, tensor in tensors.items()}, told, last)
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
        model: In evaluation mode; call inside `evaluating`.
        batch: Its arguments.
        tensors: What to watch, by name.

    Returns:
        The reads, without the tensors of the run; and, by the name of a watched tensor, the running
        mean of the one batch normalisation that takes the result of the operation that read it, if
        nothing else does.
    """
    watcher = _Watcher({id(tensor): name for name, tensor in tensors.items()}, None, None)
    with watcher:
        returned = model(*batch)
    for tensor in tensors_in(returned):
        watcher.note_readers([tensor], "output", None)
    return tuple(watcher.reads), {
        name: readers[0]
        for name, readers in watcher.readers.items()
        if len(readers) == 1 and readers[0] is not None
    }


class _ReachedError(Exception):
    """Ends a run that came as far as it should."""


class _Watcher(Dispatch):
    def __init__(
        self, names: Mapping[int, str], told: Callable[[Read], object] | None, last: str | None
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names, self.told, self.last = names, told, last
        self.reads: list[Read] = []
        self.readers: dict[str, list[Tensor | None]] = {}
        self._made = WeakIdKeyDictionary()

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        taken = _tensors(args, kwargs)
        result = func(*args, **kwargs)
        found = [self.names[id(tensor)] for tensor in taken if id(tensor) in self.names]
        if self.told is None:
            named = bound(func, args, kwargs) if found or self._made else {}
            mean = named.get("running_mean") if not named.get("training") else None
            self.note_readers(taken, name_of(func), mean)
            self._note(func, found, named, result)
        elif found:
            self._tell(func, found, bound(func, args, kwargs), result)
        return result

    def _tell(self, func: OpOverload, found: list[str], named: Any, result: Any) -> None:
        for name in found:
            self.told(Read(name, name_of(func), named, result))  # type: ignore[misc]
        if self.last in found:
            raise _ReachedError

    def _note(self, func: OpOverload, found: list[str], named: Any, result: Any) -> None:
        plain = {key: None if isinstance(v, Tensor) else v for key, v in named.items()}
        kept = {key: v for key, v in named.items() if key == "bias" or "running" in key}
        for name in found:
            self.reads.append(Read(name, name_of(func), {**plain, **kept}))
            if isinstance(result, Tensor):
                self._made[result] = name
                self.readers.setdefault(name, [])

    def note_readers(self, taken: list[Tensor], op: str, mean: Tensor | None) -> None:
        """Note that `op` takes results of watched operations."""
        for tensor in taken:
            name = self._made.get(tensor)  # type: ignore[no-untyped-call]
            if name is not None:
                self.readers[name].append(mean if op == "batch_norm" else None)


class Lockstep:
    """A run of a network over batches that halts at one layer after the other.

    All batches reach a layer before any passes it, so a layer can be changed with everything in
    hand that it will read, and what follows computes with the changed one. Every operation is
    executed once per batch: what lies before the halt is replayed from what the batch still needs
    of it. Where that takes more than `keep_bytes`, or a model's code follows values, a batch is run
    from its start again.

    Args:
        model: In evaluation mode; use inside `evaluating`.
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

        Layers must be asked for in the order of their execution, and each once.

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
                pass  # The code looked at a value that is no longer there.
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
            raise RuntimeError(f"{type(self._model).__name__} never takes the tensor asked for")
        self._bytes[index] = 0
        if sum(self._bytes) + stepper.bytes <= self._keep_bytes:
            self._bytes[index], self._done[index] = stepper.bytes, stepper.done
        return stepper.arrived


class _LostError(Exception):
    """A replayed run does not do what it did before."""


class _Slot:
    """A tensor that an executed operation returned: itself while needed, else its shape."""

    def __init__(self, tensor: Tensor) -> None:
        self.shape, self.stride, self.dtype = tensor.shape, tensor.stride(), tensor.dtype
        self.weak = TensorWeakRef(tensor)
        self.kept: Tensor | None = None

    def keep(self) -> Tensor | None:
        """Hold the tensor if the halted run still does."""
        self.kept = self.weak()
        return self.kept

    def give(self) -> Tensor:
        """Return the tensor and let go of it; of one no longer needed, its shape."""
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


class _Stepper(Dispatch):
    """Replays what is done, executes what is not, and stops where a tensor is taken."""

    def __init__(self, target: Tensor, done: list[_Done]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.target, self.done = target, done
        self.arrived: Mapping[str, Any] | None = None
        self.bytes = 0
        self._place, self._replayed = 0, len(done)

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._place < self._replayed:
            return self._replay(func)
        taken = _tensors(args, kwargs)
        if any(tensor is self.target for tensor in taken):
            self.arrived = bound(func, args, kwargs)
            self._require_values(taken)
            self.bytes = self._keep()  # The code's own variables are gone once this is raised.
            raise _ReachedError
        result = func(*args, **kwargs)
        self._require_values(_tensors((*taken, result), {}))
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

    def _replay(self, func: OpOverload) -> Any:
        done = self.done[self._place]
        self._place += 1
        if done.func is not func:
            raise _LostError
        if isinstance(done.result, _Slot):
            return done.result.give()
        return tree_map(lambda leaf: leaf.give() if isinstance(leaf, _Slot) else leaf, done.result)

    def _require_values(self, tensors: list[Tensor]) -> None:
        if self._replayed and any(tensor.is_meta for tensor in tensors):
            raise _LostError


def _tensors(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
    found: list[Tensor] = []
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found.extend(item for item in value if isinstance(item, Tensor))
    return found
