"""Run a module once and write down every ATen operation it executes.

The run is on the meta device, where tensors have shapes and no values: it costs no arithmetic and
no memory. A module that asks for values (detectors choose among their proposals) is run on the
values of the example instead. Design note 0009 says why this and not `torch.export`.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.nn.modules import module as module_hooks
from torch.utils._pytree import tree_map_only
from torch.utils.weak import WeakIdKeyDictionary

from flyweight.errors import GraphError
from flyweight.graph.dispatch import Dispatch, bound, name_of, plain_attention
from flyweight.graph.inputs import tensors_in
from flyweight.graph.meta import result_of
from flyweight.graph.stored import copy_module, held_tensors

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Value:
    """A tensor of the run, by number."""

    number: int
    shape: Shape


@dataclass(frozen=True, eq=False)
class Call:
    """One executed operation.

    Attributes:
        op: Its ATen name without overload and in-place mark, for example `conv2d`.
        where: Path of the module that ran it.
        arguments: By schema name, defaults included; tensors are `Value`s.
        results: The tensors it returned.
        single: Whether it returned one tensor, not a sequence of them.
    """

    op: str
    where: str
    arguments: dict[str, Any]
    results: tuple[Value, ...]
    single: bool


@dataclass(frozen=True, eq=False)
class Recording:
    """What a module did with an example.

    Attributes:
        calls: In order of execution.
        stored: First name of every stored tensor by its number.
        outputs: What the module returned.
        values: Whether it ran on the values of the example, not on shapes alone.
    """

    calls: tuple[Call, ...]
    stored: dict[int, str]
    outputs: tuple[Value, ...]
    values: bool


Watch = Callable[[int, Call], None]
"""Told every call and its place in the run as it happens; what it raises ends the run."""


def record(model: nn.Module, args: tuple[Any, ...], followed: frozenset[str]) -> Recording:
    """Run `model` on `args` in evaluation mode and return what it executed.

    Args:
        model: Left as it was: a stand-in that shares no state with it is run.
        args: Example inputs; tensors may stand in lists, tuples and dictionaries.
        followed: Names of operations to record whole. Others are recorded in the parts that
            PyTorch composes them of, where it does.

    Raises:
        GraphError: The module fails on these inputs; the message carries its reason.
    """
    lifeless = any(tensor.is_meta for _, tensor, _ in held_tensors(model))
    try:
        return run(stand_in(model, values=False), args, followed, values=False)
    except Exception as shapes_alone:
        if lifeless or any(tensor.is_meta for tensor in tensors_in(args)):
            raise _failure(model, shapes_alone) from shapes_alone
    try:
        return run(stand_in(model, values=True), args, followed, values=True)
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
    twin: nn.Module,
    args: tuple[Any, ...],
    followed: frozenset[str],
    *,
    values: bool,
    watch: Watch | None = None,
) -> Recording:
    """Run a stand-in and return what it executed; see `record`.

    Args:
        twin: From `stand_in`, with the same `values`.
        args: Example inputs.
        followed: Names of operations to record whole.
        values: Whether to run on the values of `args`.
        watch: Told every call.

    Raises:
        GraphError: The module returned no tensors.
        Exception: Whatever the module or `watch` raises.
    """
    recorder = _Recorder(followed, watch, values=values)
    recorder.name(twin)
    if not values:
        args = tree_map_only(Tensor, _meta, args)
    with (
        plain_attention(),
        warnings.catch_warnings(),
        torch.inference_mode(),
        _followed_modules(twin, recorder.path),
    ):
        warnings.simplefilter("ignore")
        with recorder:
            returned = twin(*args)
    outputs = tuple(recorder.value(tensor) for tensor in tensors_in(returned))
    if not outputs:
        raise GraphError(
            f"A model must return tensors. Received {type(returned).__name__} from "
            f"{type(twin).__name__}. Trace a module that returns what it computes."
        )
    return Recording(tuple(recorder.calls), recorder.stored, outputs, values)


def stand_in(model: nn.Module, *, values: bool) -> nn.Module:
    """Return a copy in evaluation mode to run, so that whatever `forward` writes is lost.

    Args:
        model: What to stand in for.
        values: Whether it shares the weights; else it is on the meta device.
    """
    memo: dict[int, Any] = {}
    for _, tensor, _ in held_tensors(model):
        if not values:
            memo[id(tensor)] = _meta(tensor)
        elif isinstance(tensor, nn.Parameter):
            memo[id(tensor)] = tensor
    return copy_module(model, memo).eval()


def _meta(tensor: Tensor) -> Tensor:
    if tensor.is_meta:
        return tensor
    twin = torch.empty_strided(
        tensor.shape, tensor.stride(), dtype=tensor.dtype, device=torch.device("meta")
    )
    return nn.Parameter(twin, requires_grad=False) if isinstance(tensor, nn.Parameter) else twin


@contextmanager
def _followed_modules(model: nn.Module, path: list[str]) -> Iterator[None]:
    """Keep the path of the running module at the end of `path`."""
    names = {id(module): name for name, module in model.named_modules()}

    def enter(module: nn.Module, _: object) -> None:
        path.append(names.get(id(module), path[-1]))

    def leave(_: nn.Module, __: object, ___: object) -> None:
        path.pop()

    hooks = (
        module_hooks.register_module_forward_pre_hook(enter),
        module_hooks.register_module_forward_hook(leave),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Recorder(Dispatch):
    """Sees every operation before PyTorch takes it apart, which inference mode arranges."""

    def __init__(self, followed: frozenset[str], watch: Watch | None, *, values: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.followed, self.watch, self.values = followed, watch, values
        self.calls: list[Call] = []
        self.stored: dict[int, str] = {}
        self.path = [""]
        self._numbers = WeakIdKeyDictionary()
        self._count = 0

    def name(self, model: nn.Module) -> None:
        """Number the stored tensors of `model`."""
        for name, tensor, _ in held_tensors(model):
            if tensor not in self._numbers:
                self.stored[self.value(tensor).number] = name

    def value(self, tensor: Tensor) -> Value:
        """Return the number and shape of `tensor`."""
        number = self._numbers.get(tensor)  # type: ignore[no-untyped-call]
        if number is None:
            number = self._number(tensor)
        return Value(number, tuple(tensor.shape))

    def _number(self, tensor: Tensor) -> int:
        self._count += 1
        self._numbers[tensor] = self._count
        return self._count

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        op = name_of(func)
        if op not in self.followed:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        if op == "contiguous":
            # PyTorch skips it where nothing is to do, which depends on sizes: never a call.
            result = self._result(op, func, args, kwargs)
            self._numbers[result] = self.value(args[0]).number
            return result
        arguments = {name: self._seen(v) for name, v in bound(func, args, kwargs).items()}
        result = self._result(op, func, args, kwargs)
        # What an operation returns is new, even where it is the tensor it wrote into.
        single = isinstance(result, Tensor)
        tensors = [result] if single else [t for t in _items(result) if isinstance(t, Tensor)]
        results = tuple(Value(self._number(t), tuple(t.shape)) for t in tensors)
        if results:
            self.calls.append(Call(op, self.path[-1], arguments, results, single))
            if self.watch is not None:
                self.watch(len(self.calls) - 1, self.calls[-1])
        return result

    def _seen(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self.value(value)
        if isinstance(value, (list, tuple)):
            return [self._seen(item) for item in value]
        return value

    def _result(
        self, op: str, func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        on_meta = not self.values and any(t.is_meta for t in tensors_in((args, kwargs)))
        if not on_meta:
            return func(*args, **kwargs)
        # Constants that the model made come to the meta device once they meet its tensors.
        args, kwargs = tree_map_only(Tensor, _meta, (args, kwargs))
        return result_of(op, func, args, kwargs)


def _items(result: Any) -> tuple[Any, ...]:
    return tuple(result) if isinstance(result, (list, tuple)) else ()
