"""The recorder: sees every operation that a module executes and numbers its tensors.

There is one recorder. What uses it decides how an operation is executed (`execute`: on shapes
alone, on values, or by handing out an earlier result) and what to do after it (`after`).
"""

from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import ref

from torch import Tensor, nn, strided
from torch._ops import OpOverload
from torch.jit import ScriptModule
from torch.utils._pytree import tree_map_only

from flyweight.graph.dispatch import Dispatch, name_of
from flyweight.graph.program import Call, Value
from flyweight.graph.stored import held_tensors


class Recorder(Dispatch):
    """Records the operations of one run; use it as a context in inference mode.

    Inference mode makes PyTorch show operations before it takes them apart.

    Args:
        whole: Names of operations to record whole. Others are recorded in the parts that PyTorch
            composes them of, where it does.
        path: Paths of the modules that run at present, the innermost last; see `module_paths`.

    Attributes:
        calls: What was executed so far.
        stored: Numbers of the tensors of the modules given to `number_stored`, by name.
    """

    def __init__(self, whole: Container[str], path: list[str] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Call] = []
        self.stored: dict[str, int] = {}
        self._whole, self._path = whole, [""] if path is None else path
        self._numbers = _Numbers()
        self._count = 0

    def number_stored(self, model: nn.Module) -> None:
        """Number the parameters, buffers and other tensors of `model`, before it runs."""
        for name, tensor, _ in held_tensors(model):
            self.stored[name] = self.value(tensor).number

    def number_of(self, tensor: Tensor) -> int | None:
        """Return the number of a tensor that was seen, else nothing."""
        return self._numbers.get(tensor)

    def seen(self) -> list[Tensor]:
        """Return the tensors that have a number and still exist."""
        return self._numbers.tensors()

    def value(self, tensor: Tensor) -> Value:
        """Return the value of a tensor; one that was not seen yet gets the next number."""
        number = self._numbers.get(tensor)
        if number is None and type(tensor) not in _PLAIN_TYPES:
            number = self._numbers.of_same_memory(tensor)
        if number is None:
            return self._new(tensor)
        return Value(number, tuple(tensor.shape), tensor.dtype)

    def values(self, tree: Any) -> Any:
        """Return nested containers with values in place of tensors."""
        return tree_map_only(Tensor, self.value, tree)

    def execute(self, func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the result of an operation."""
        return func(*args, **kwargs)

    def known(self) -> tuple[Tensor, ...]:
        """Return what `Call.known` is of the operation executed last."""
        return ()

    def after(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Act on a call that was executed; what this raises ends the run."""

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        op = name_of(func)
        if op not in self._whole:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        noted = [self._noted(value) for value in args]
        named = {name: self._noted(value) for name, value in kwargs.items()}
        result = self.execute(func, args, kwargs)
        # What an operation returns is new, even where it is the tensor that it wrote into.
        made = self._mapped(result, self._new)
        call = Call(func, op, self._path[-1], tuple(noted), named, made, self.known())
        self.calls.append(call)
        self.after(call, args, kwargs, result)
        return result

    def _new(self, tensor: Tensor) -> Value:
        self._count += 1
        self._numbers.set(tensor, self._count)
        return Value(self._count, tuple(tensor.shape), tensor.dtype)

    def _noted(self, argument: Any) -> Any:
        return self._mapped(argument, self.value)

    def _mapped(self, tree: Any, change: Callable[[Tensor], Value]) -> Any:
        # Operations take and return tensors and lists of them; `tree_map` costs several times this.
        if isinstance(tree, Tensor):
            return change(tree)
        if isinstance(tree, (list, tuple)):
            return [self._mapped(item, change) for item in tree]
        return tree


_PLAIN_TYPES = (Tensor, nn.Parameter)


def _place_of(tensor: Tensor) -> tuple[Any, ...]:
    memory = tensor.untyped_storage()._cdata
    return memory, tensor.storage_offset(), tensor.shape, tensor.stride()


class _Numbers:
    """Numbers of tensors by identity; tensors are not kept alive.

    A reference would change what PyTorch executes: it copies a new tensor that someone else holds.
    `WeakIdKeyDictionary` does the same at several times the cost, which a trace notices.
    """

    def __init__(self) -> None:
        # An identity may be used again after a tensor is gone, so its reference is compared too.
        self._held: dict[int, tuple[ref[Tensor], int]] = {}
        self._places: dict[tuple[Any, ...], int] = {}

    def get(self, tensor: Tensor) -> int | None:
        found = self._held.get(id(tensor))
        return found[1] if found is not None and found[0]() is tensor else None

    def set(self, tensor: Tensor, number: int) -> None:
        self._held[id(tensor)] = (ref(tensor), number)
        if tensor.layout is strided:
            self._places[_place_of(tensor)] = number

    def of_same_memory(self, tensor: Tensor) -> int | None:
        """Return the number of the tensor that another one was made of by `as_subclass`.

        PyTorch shows that operation to nobody. It happens after every operation on tensors of a
        class of their own, whose results would be unknown otherwise.
        """
        return self._places.get(_place_of(tensor)) if tensor.layout is strided else None

    def tensors(self) -> list[Tensor]:
        found = [held() for held, _ in self._held.values()]
        alive = [tensor for tensor in found if tensor is not None]
        for tensor in alive:
            tensor._fix_weakref()  # type: ignore[attr-defined] # As `TensorWeakRef` has to.
        return alive


@contextmanager
def module_paths(model: nn.Module, outside: str = "") -> Iterator[list[str]]:
    """Yield a list that holds the path of the running module of `model` at its end.

    The forward of every module is wrapped meanwhile, so `model` must be a private copy that one
    thread runs. Hooks would not do: those that PyTorch keeps for all modules hold for all threads.

    Args:
        model: The private copy.
        outside: What the list holds while no module runs.

    Yields:
        Paths of the modules that run at present, the innermost last.
    """
    path = [outside]
    wrapped = []
    for name, module in model.named_modules():
        if not isinstance(module, ScriptModule):
            wrapped.append((module.__dict__, module.__dict__.get("forward")))
            module.__dict__["forward"] = _entering(module.forward, name, path)
    try:
        yield path
    finally:
        for attributes, own in wrapped:
            # A wrapper refers to its module: left in place, it would keep the module from going.
            if own is None:
                del attributes["forward"]
            else:
                attributes["forward"] = own


def _entering(forward: Callable[..., Any], name: str, path: list[str]) -> Callable[..., Any]:
    def entered(*args: Any, **kwargs: Any) -> Any:
        path.append(name)
        try:
            return forward(*args, **kwargs)
        finally:
            path.pop()

    entered.__wrapped__ = forward  # type: ignore[attr-defined]
    return entered
