"""Sites: the calls of torch functions in a network's code, where quantization can take hold.

An operation cannot be changed where PyTorch executes it, below its gradients. A function of torch
that the code calls can: by a mode that PyTorch asks before each (`torch.overrides`). A site is
named by the module whose forward calls, the function, and how often this module called it before.
That depends neither on sizes nor on the batch, and works in training, too.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from flyweight.graph.containers import placed_tensors
from flyweight.graph.example_inputs import Example
from flyweight.graph.operations import names_of
from flyweight.graph.program import Call
from flyweight.graph.recorder import Recorder
from flyweight.graph.recording import private_copy
from flyweight.graph.rules import WHOLE
from flyweight.quantization.fixed_norms import as_batch_norms_

_PATH: ContextVar[list[str] | None] = ContextVar("_PATH", default=None)
"""Paths of the modules that run, the innermost last; of the thread that runs them."""
_OTHER_SPELLINGS = {
    **dict.fromkeys(("__add__", "__radd__", "__iadd__"), "add"),
    **dict.fromkeys(("__mul__", "__rmul__", "__imul__"), "mul"),
}
"""Operators by the function that does the same."""


def _without_modes(function: Any) -> Callable[..., Any]:
    """Return PyTorch's own code of a function, without the question whether a mode wants it."""
    names = {**function.__globals__, "has_torch_function": lambda _: False}
    made = FunctionType(function.__code__, names, function.__name__, function.__defaults__)
    made.__kwdefaults__ = function.__kwdefaults__
    return made


_OPENED = {
    function: _without_modes(function) for function in (nn.functional.multi_head_attention_forward,)
}
"""Functions with layers inside, to their code: what it calls are sites, and it is none itself."""


@dataclass(frozen=True, eq=False)
class Site:
    """One call of a torch function in a run, with the operations that it executed.

    Attributes:
        name: Unique in the network, for example `features.0.0|conv2d|1`.
        calls: What PyTorch executed, at least one operation.
        operations: Their names, as `graph.operations` has them; empty for changes of layout.
    """

    name: str
    calls: tuple[Call, ...]
    operations: tuple[str, ...]

    @property
    def op(self) -> str:
        """ATen name of the operation; empty where the function executes several."""
        steps = [call.op for call in self.calls if call.is_step]
        return steps[0] if len(set(steps)) == 1 else ""

    @property
    def operation(self) -> str:
        """Name of the last operation, whose result the function returns."""
        return self.operations[-1] if self.operations else self.name

    @property
    def makes(self) -> tuple[int, ...]:
        """Numbers of the tensors that the function returns."""
        return self.calls[-1].makes

    @property
    def reads(self) -> tuple[int, ...]:
        """Numbers of the tensors that the function takes."""
        made = {number for call in self.calls for number in call.makes}
        taken = (number for call in self.calls for number in call.reads if number not in made)
        return tuple(dict.fromkeys(taken))


@dataclass(frozen=True, eq=False)
class RecordedSites:
    """What a network calls, in order.

    Attributes:
        sites: In the order of execution.
        inputs: Number of each tensor of the example that holds no whole numbers, to its place.
        stored: Number of each tensor that the network holds, to its name.
        outputs: Numbers of the tensors that the network returns.
        learned: Numbers of the stored tensors that are parameters.
    """

    sites: tuple[Site, ...]
    inputs: dict[int, str]
    stored: dict[int, str]
    outputs: tuple[int, ...]
    learned: frozenset[int]


Handle = Callable[[str, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""Takes the name of a site, the function, its arguments; returns what the function would."""


class SiteMode(TorchFunctionMode):
    """Hands every call of a torch function to `handle`, under the name of its site.

    What a function calls in turn is not seen, because PyTorch turns the mode off meanwhile; that of
    the functions in `_OPENED` is.
    """

    def __init__(self, handle: Handle) -> None:
        super().__init__()
        self._handle = handle
        self._count: Counter[tuple[str, str]] = Counter()

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one function through `handle`."""
        if (opened := _OPENED.get(func)) is not None:
            with self:
                return opened(*args, **(kwargs or {}))
        path = _PATH.get()
        plain = _function_name(func)
        where = path[-1] if path else ""
        self._count[where, plain] += 1
        name = f"{where}|{plain}|{self._count[where, plain]}"
        return self._handle(name, func, args, kwargs or {})


def _function_name(func: Any) -> str:
    name = str(getattr(func, "__name__", func))
    if name.endswith("__"):
        return _OTHER_SPELLINGS.get(name, name)
    return name.removesuffix("_")


def watch_paths(model: nn.Module) -> None:
    """Make the modules of `model` note when they run, as long as they live.

    Hooks, not wrappers: they are copied and saved with the module. Normalisations with fixed
    statistics run as one operation from then on.
    """
    as_batch_norms_(model)
    for path, module in model.named_modules():
        if path:
            module.register_forward_pre_hook(partial(_enter, path))
            module.register_forward_hook(_leave, always_call=True)


def _enter(path: str, module: nn.Module, args: Any) -> None:
    running = _PATH.get()
    if running is not None:
        running.append(path)


def _leave(module: nn.Module, args: Any, result: Any) -> None:
    running = _PATH.get()
    if running:
        running.pop()


@contextmanager
def handled(handle: Handle) -> Iterator[None]:
    """Run code of a module with watched paths; each call of a torch function goes to `handle`."""
    token = _PATH.set([])
    try:
        with SiteMode(handle):
            yield
    finally:
        _PATH.reset(token)


def record_sites(model: nn.Module, example: Example) -> RecordedSites:
    """Run a private copy of `model` in evaluation mode and return its sites.

    Args:
        model: Left as it is.
        example: The inputs, with values.

    Raises:
        Exception: Any error of the model.
    """
    copy = private_copy(model, values=True)
    watch_paths(copy)
    recorder = _PathRecorder(WHOLE)
    ranges: list[tuple[str, int, int]] = []

    def noted(name: str, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        start = len(recorder.calls)
        result = func(*args, **kwargs)
        if len(recorder.calls) > start:
            ranges.append((name, start, len(recorder.calls)))
        return result

    given = example.mapped(lambda tensor: tensor.detach().clone())
    with torch.inference_mode(), recorder, handled(noted):
        recorder.number_stored(copy)
        inputs = {
            recorder.value(tensor).number: place
            for place, tensor in given.tensors()
            if tensor.is_floating_point()
        }
        returned = copy(*given.args, **given.kwargs)
        outputs = tuple(recorder.value(tensor).number for _, tensor in placed_tensors(returned))
    names = {id(call): name for name, call in names_of(recorder.calls)}
    sites = []
    for name, start, end in ranges:
        calls = tuple(recorder.calls[start:end])
        found = tuple(names[id(call)] for call in calls if id(call) in names)
        sites.append(Site(name, calls, found))
    # A shared tensor has its first name.
    stored = {number: name for name, number in reversed(recorder.stored.items())}
    parameters = {name for name, _ in copy.named_parameters()}
    learned = frozenset(number for number, name in stored.items() if name in parameters)
    return RecordedSites(tuple(sites), inputs, stored, outputs, learned)


class _PathRecorder(Recorder):  # type: ignore[no-untyped-call]
    """A recorder that knows the running module by the watched paths."""

    @property
    def _path(self) -> list[str]:
        return ["", *(_PATH.get() or [])]

    @_path.setter
    def _path(self, value: list[str]) -> None:
        pass
