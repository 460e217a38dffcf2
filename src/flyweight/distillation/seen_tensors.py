"""Seen tensors: results of operations that a forward hook on a module receives.

A trace sees every operation, below the gradients of PyTorch. A loss needs tensors with gradients,
and a hook receives those that a module returns. Both are recorded in one run, so that a tap has the
operation's name, which a pruned network shares with the dense one, and the hook that gets it.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from torch import nn

from flyweight.errors import GraphError
from flyweight.graph import Operation
from flyweight.graph.containers import placed_tensors, reachable_tensors
from flyweight.graph.entry import plain_module
from flyweight.graph.example_inputs import Example
from flyweight.graph.operations import names_of, operations_of
from flyweight.graph.program import Run
from flyweight.graph.recorder import Recorder
from flyweight.graph.recording import private_copy, run
from flyweight.graph.rules import WHOLE

Layout = Literal["maps", "last", "tokens", "vectors"]
"""Where channels lie: `(n, channels, h, w)`, `(n, h, w, channels)`, `(n, ..., channels)` without
positions of an image, or `(n, channels)`."""


@dataclass(frozen=True)
class SeenTensor:
    """A tensor of a network that a hook receives.

    Attributes:
        operation: Name of the operation that makes it, as `ModelGraph.operations` has it.
        module: Path of the innermost module that returns it; empty for the network itself.
        call: How many calls of this module come before, within one run of the network.
        place: Where it lies in what the module returns, for example `output` or `output[1]`.
        shape: Sizes with the recorded input.
        layout: Where its channels lie.
        stride: Input pixels per position of a map, rounded; 0 for other layouts.
        depth: Parts of the path of the outermost module that returns it. What an outer module
            returns is the end of a stage.
    """

    operation: str
    module: str
    call: int
    place: str
    shape: tuple[int, ...]
    layout: Layout
    stride: int
    depth: int

    @property
    def channels(self) -> int:
        """Its width."""
        return self.shape[1] if self.layout == "maps" else self.shape[-1]

    @property
    def is_map(self) -> bool:
        """Whether it has positions of an image, more than one."""
        return self.layout in ("maps", "last") and self.positions[0] * self.positions[1] > 1

    @property
    def positions(self) -> tuple[int, int]:
        """Height and width of a map."""
        rows, columns = self.shape[2:4] if self.layout == "maps" else self.shape[1:3]
        return rows, columns


@dataclass(frozen=True)
class LastLayers:
    """The last layers of a head: modules that make an output of one map, one after the other.

    Attributes:
        source: Operation of the map that the first module takes.
        modules: Their paths, from the first to the one that makes the output.
    """

    source: str
    modules: tuple[str, ...]


@dataclass(frozen=True)
class Head:
    """An output of a network, and the layers that make it.

    Attributes:
        place: Where it lies in what the network returns, for example `output[1]`.
        shape: Sizes with the recorded input.
        operation: Name of the operation that makes it.
        source: Operation of the last seen map of features before it; None where there is none.
        ends: The last convolution, the last two, and so on, each with the modules after it. Empty
            where something else makes the output, such as a resize.
    """

    place: str
    shape: tuple[int, ...]
    operation: str
    source: str | None
    ends: tuple[LastLayers, ...]


@dataclass(frozen=True)
class SeenNetwork:
    """What hooks see of a network.

    Attributes:
        tensors: Those with one row per image, in the order of execution, each once.
        heads: The outputs.
        input_shape: Of the images.
    """

    tensors: tuple[SeenTensor, ...]
    heads: tuple[Head, ...]
    input_shape: tuple[int, ...]

    def find(self, operation: str) -> SeenTensor | None:
        """Return the tensor that an operation makes, if it is seen."""
        return next((one for one in self.tensors if one.operation == operation), None)


@dataclass(frozen=True)
class _Return:
    """A module has returned a tensor.

    Attributes:
        module: Its path.
        call: How many of its calls came before.
        place: Where the tensor lies in what it returned.
        number: Of the tensor.
        within: Paths of the modules that run meanwhile, the outermost first.
    """

    module: str
    call: int
    place: str
    number: int
    within: tuple[str, ...]

    @property
    def depth(self) -> int:
        """Parts of the module's path; of a module that another one only uses, one more than that.

        A quantizer runs within the layer whose result it rounds, and is stored elsewhere.
        """
        caller = self.within[-1] if self.within else ""
        if caller and not self.module.startswith(f"{caller}."):
            return _parts(caller) + 1
        return _parts(self.module)


def _parts(path: str) -> int:
    return path.count(".") + 1


def see_network(model: nn.Module, images: Any) -> SeenNetwork:
    """Run a copy of a network in evaluation mode and return what hooks see of it.

    Args:
        model: Any module; it is not changed.
        images: An input, `(n, 3, h, w)`; values matter only to a network that asks for them.

    Raises:
        GraphError: The network fails on this input.
    """
    model = plain_module(model)
    example = Example((images,))
    try:
        returns, recorded = _run(model, example, values=False)
    except Exception as error:
        if images.is_meta or any(parameter.is_meta for parameter in model.parameters()):
            raise _failure(model, error) from error
        try:
            returns, recorded = _run(model, example, values=True)
        except Exception as failure:
            raise _failure(model, failure) from failure
    operations, _ = operations_of(model, recorded)
    shape = tuple(images.shape)
    tensors = tuple(_seen(returns, recorded, shape))
    return SeenNetwork(tensors, tuple(_heads(returns, recorded, operations, tensors)), shape)


def _failure(model: nn.Module, error: Exception) -> GraphError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return GraphError(
        f"A network must run on the example images. Received from {type(model).__name__}: "
        f"{reason}. Give an example of the shape that its forward takes."
    )


def _run(model: nn.Module, example: Example, *, values: bool) -> tuple[list[_Return], Run]:
    copy = private_copy(model, values=values)
    watcher = _Watcher()
    for path, module in copy.named_modules():
        module.register_forward_pre_hook(partial(watcher.entered, path))
        module.register_forward_hook(partial(watcher.returned, path))
    recorded = run(copy, example, WHOLE, values=values, begun=watcher.begin)
    return watcher.returns, recorded


class _Watcher:
    """Notes what modules return, by the numbers of the recorder."""

    def __init__(self) -> None:
        self.returns: list[_Return] = []
        self._recorder: Recorder | None = None
        self._calls: Counter[str] = Counter()
        self._running: list[str] = []

    def begin(self, recorder: Recorder) -> None:
        """Receive the recorder."""
        self._recorder = recorder

    def entered(self, path: str, module: nn.Module, args: Any) -> None:
        """Note that a module runs; a hook."""
        self._running.append(path)

    def returned(self, path: str, module: nn.Module, args: Any, result: Any) -> None:
        """Note the tensors in `result`; a hook."""
        call = self._calls[path]
        self._calls[path] += 1
        self._running.pop()
        within = tuple(one for one in self._running if one)
        find = placed_tensors(result) if not path else reachable_tensors(result, "output")
        for place, tensor in find:
            number = self._recorder.number_of(tensor) if self._recorder is not None else None
            if number is not None:
                self.returns.append(_Return(path, call, place, number, within))


_DROPOUTS = frozenset({"dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"})


def _seen(returns: list[_Return], recorded: Run, input_shape: tuple[int, ...]) -> Iterator[Any]:
    names = {call.makes: name for name, call in names_of(recorded.calls)}
    made = {
        number: (name, place) for makes, name in names.items() for place, number in enumerate(makes)
    }
    changed = _changed_later(recorded)
    # What a dropout returns is its input in evaluation, and noise in training.
    random = {name for name, call in names_of(recorded.calls) if call.op in _DROPOUTS}
    first: dict[int, _Return] = {}
    depths: dict[int, int] = {}
    for one in returns:
        if one.number not in made or one.number in changed or made[one.number][0] in random:
            continue
        found = first.setdefault(one.number, one)
        # A module that only passes a tensor on, such as a dropout, does not end a stage.
        if one is found or not one.module or one.module in found.within:
            depths[one.number] = min(one.depth, depths.get(one.number, one.depth))
    shapes = {value.number: value.shape for call in recorded.calls for value in call.results}
    order = {number: at for at, number in enumerate(made)}
    for number in sorted(first, key=order.__getitem__):
        one, (name, place) = first[number], made[number]
        shape = shapes[number]
        # Regions of an image, or windows of its tokens, are others in each network.
        if len(shape) < 2 or place or shape[0] != input_shape[0]:
            continue
        layout, stride = _layout_of(shape, input_shape)
        yield SeenTensor(
            name, one.module, one.call, one.place, shape, layout, stride, depths[number]
        )


def _changed_later(recorded: Run) -> set[int]:
    """Return the numbers of tensors that a later operation writes into."""
    changed = set()
    for call in recorded.calls:
        if call.func._schema.is_mutable and call.reads:
            changed.add(call.reads[0])
    return changed


def _layout_of(shape: tuple[int, ...], input_shape: tuple[int, ...]) -> tuple[Layout, int]:
    if len(shape) == 2:
        return "vectors", 0
    if len(shape) != 4 or len(input_shape) != 4:
        return "tokens", 0
    # The strides of both sides are equal, up to rounding of sizes; channels give other numbers.
    kinds: list[Layout] = ["maps", "last"]
    strides = {
        kind: [size / part for size, part in zip(input_shape[-2:], sides, strict=True)]
        for kind, sides in zip(kinds, (shape[2:4], shape[1:3]), strict=True)
    }
    best = min(kinds, key=lambda kind: max(strides[kind]) / min(strides[kind]))
    if (
        max(strides[best]) > _MOST_UNEQUAL * min(strides[best])
        or min(strides[best]) < _LEAST_STRIDE
    ):
        return "tokens", 0
    return best, max(round(min(strides[best])), 1)


_MOST_UNEQUAL = 1.5
_LEAST_STRIDE = 0.5
"""Maps are hardly ever larger than the image; what seems so has channels there."""


_LAYER = "conv2d"
_MOST_BEFORE = 12
"""Operations between an output and the last map before it, such as flatten, pool, interpolate; and
operations of a head's last layers."""


def _heads(
    returns: list[_Return],
    recorded: Run,
    operations: tuple[Operation, ...],
    tensors: tuple[SeenTensor, ...],
) -> Iterator[Head]:
    by_name = {operation.name: operation for operation in operations}
    names = {number: name for name, call in names_of(recorded.calls) for number in call.makes}
    maps = {one.operation: one for one in tensors if one.is_map}
    tokens = {one.operation for one in tensors if one.layout == "tokens"}
    # Also those that an activation overwrites later.
    returned = {(names[one.number], one.module) for one in returns if one.number in names}
    for one in returns:
        if one.module or one.number not in names:
            continue
        operation = by_name[names[one.number]]
        shape = operation.outputs[0].shape
        # Scores that are only resized afterwards are no features.
        features = {name for name, found in maps.items() if found.channels not in shape[1:2]}
        source = _map_before(operation, by_name, features, tokens)
        ends = tuple(_ends(operation, by_name, maps, returned))
        yield Head(one.place, shape, operation.name, source, ends)


def _map_before(
    operation: Operation, by_name: dict[str, Operation], maps: set[str], tokens: set[str]
) -> str | None:
    """Return the last seen map before an operation.

    There is none where tokens lie between: the map is only what they were made of.
    """
    current = operation
    for _ in range(_MOST_BEFORE):
        made = next(_made_inputs(current), None)
        if made is None or made in tokens:
            return None
        if made in maps:
            return made
        current = by_name[made]
    return None


def _ends(
    operation: Operation,
    by_name: dict[str, Operation],
    maps: dict[str, SeenTensor],
    returned: set[tuple[str, str]],
) -> Iterator[LastLayers]:
    """Yield the last layers of a head, as far as every module does one operation on one tensor.

    Such modules can be called one after the other on another map, of any size.
    """
    modules: tuple[str, ...] = ()
    current = operation
    for _ in range(_MOST_BEFORE):
        made = list(_made_inputs(current))
        alone = len(made) == 1 and by_name[made[0]].module != current.module
        if not (alone and current.module and (current.name, current.module) in returned):
            return
        modules = (current.module, *modules)
        if current.op == _LAYER and made[0] in maps and maps[made[0]].layout == "maps":
            yield LastLayers(made[0], modules)
        current = by_name[made[0]]


def _made_inputs(operation: Operation) -> Iterator[str]:
    """Yield the operations that make what an operation takes."""
    return (one.operation for one in operation.inputs if one.operation is not None)
