"""Numbers of modules that repeat a width, although no recorded run reads them.

Blocks keep their width for methods other than `forward`: `fold`, `reparameterize`, `extra_repr`.
After a cut such a number must be the width that stays, as `in_channels` of a convolution is.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from torch import nn

from flyweight.graph.cost import AxisSize, Layer
from flyweight.graph.cutting import numbers_in
from flyweight.graph.model_graph import ModelGraph
from flyweight.graph.reachable_names import reachable_names

_WIDTH = re.compile(
    r"(?i)(?:^|_)(?:in|out|input|output|inp|oup|mid|hidden|expanded|embed|emb|n|num|c|d|nf|nc"
    r"|ch|chs|chan|chans|channel|channels|width|widths|plane|planes|inplanes|outplanes|filter"
    r"|filters|groups|feat|feats|feature|features|maps|dim|dims|size|model)\d*(?:$|_|\[)"
)
"""Names of attributes that may repeat a width."""
_OTHER = re.compile(
    r"(?i)base|kernel|stride|pad|dilat|class|head|depth|layer|block|stage|branch|repeat|ratio|factor"
    r"|scale|window|patch|image|img|grid|pool|token|len|seq|vocab|batch|iter|step|level|point"
)
"""Names of attributes that count something else; what they equal, they equal by chance."""
_INPUTS = re.compile(r"(?i)^(?:in|inp|input|inplanes)(?:_|\d|$)|_in$")
_OUTPUTS = re.compile(r"(?i)^(?:out|oup|output|outplanes)(?:_|\d|$)|_out$")
_MOST_NAMED = 4


@dataclass(frozen=True)
class WidthNumbers:
    """Numbers that repeat a width.

    Attributes:
        sizes: What stays of each, by path.
        unclear: Paths of those that equal several widths, which need not be cut alike.
        doubtful: Paths of those among `sizes` whose names occur in code that a run may reach.
    """

    sizes: Mapping[str, AxisSize]
    doubtful: frozenset[str] = frozenset()
    unclear: tuple[str, ...] = ()

    def notes(self) -> tuple[str, ...]:
        """Return a note that names the numbers which are not clear."""
        # Lists of widths, such as those of all scales of a backbone, are read by nobody later.
        unclear = [name for name in self.unclear if "[" not in name]
        if not unclear:
            return ()
        more = len(unclear) - _MOST_NAMED
        listed = ", ".join(unclear[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
        note = (
            f"These numbers equal several widths and keep their value in a cut: {listed}. No run "
            "reads them; set them by hand before you call other code that does, such as a method "
            "that folds branches."
        )
        return (note,)


def width_numbers(model: nn.Module, graph: ModelGraph) -> WidthNumbers:
    """Return the numbers of a user's modules that repeat a width.

    A number is one if its name is that of a width, if it equals sizes of tensors that the module or
    its parts store, and if all of these sizes are the same function of the channels that stay. A
    name that begins with `in` or `out` is the input of the module's first layer or the output of
    its last one, if it equals it.

    Args:
        model: What was traced.
        graph: Its graph. What is among its `numbers` is left out.
    """
    sizes: dict[str, AxisSize] = {}
    unclear = []
    near = _Nearby(graph)
    for path, module in model.named_modules():
        if _is_layer_of_torch(module):
            continue
        for key, value in numbers_in(module).items():
            name = f"{path}.{key}" if path else key
            if name in graph.numbers or not _WIDTH.search(key) or _OTHER.search(key):
                continue
            found = near.equal(path, key, value)
            changing = [size for size in found if size.shares]
            if len(found) == 1 and changing:
                sizes[name] = changing[0]
            elif changing:
                unclear.append(name)
    read = reachable_names(model) if sizes else frozenset()
    return WidthNumbers(
        sizes, frozenset(p for p in sizes if attribute_of(p) in read), tuple(unclear)
    )


def attribute_of(path: str) -> str:
    """Return the attribute at the end of a number's path.

    Example:
        >>> attribute_of("stages.0.widths[1]")
        'widths'
    """
    return path.rpartition(".")[2].partition("[")[0]


_CONTAINERS = (nn.Module, nn.Sequential, nn.ModuleList, nn.ModuleDict)


def _is_layer_of_torch(module: nn.Module) -> bool:
    """Whether a module is a layer of PyTorch, or of a class made of one: a cut keeps these true."""
    kinds = (kind for kind in type(module).__mro__ if kind not in _CONTAINERS)
    return any(kind.__module__.startswith("torch.") for kind in kinds)


class _Nearby:
    """Sizes of what a module and its parts store and compute with."""

    def __init__(self, graph: ModelGraph) -> None:
        self._full = {name: group.size for name, group in graph.groups.items()}
        self._tensors: dict[str, list[list[AxisSize]]] = {}
        for tensor in graph.costs.tensors:
            owner = tensor.name.rpartition(".")[0]
            axes = tensor.axes if len(tensor.axes) < 4 else tensor.axes[:2]
            for depth, path in enumerate(_around(owner)):
                levels = self._tensors.setdefault(path, [])
                levels.extend([] for _ in range(depth + 1 - len(levels)))
                levels[depth].extend(axes)
        self._layers: dict[str, list[Layer]] = defaultdict(list)
        for op in graph.costs.ops:
            if op.layer is not None:
                for path in _around(op.name):
                    self._layers[path].append(op.layer)

    def equal(self, path: str, key: str, value: int) -> set[AxisSize]:
        """Return the different sizes of this value that a number of a module may repeat."""
        for sizes in self._likeliest_first(path, key):
            found = {size for size in sizes if size.under(self._full) == value}
            if found:
                return found
        return set()

    def _likeliest_first(self, path: str, key: str) -> Iterator[Iterable[AxisSize]]:
        layers = self._layers.get(path, [])
        if key == "groups" and layers:
            # The number of groups follows where every channel is one of them.
            yield [one.inputs for one in layers if one.geometry.groups == 0]
            return
        if layers and _INPUTS.search(key):
            yield [layers[0].inputs]
            yield [one.inputs for one in layers]
        elif layers and _OUTPUTS.search(key):
            yield [layers[-1].outputs]
            yield [one.outputs for one in layers]
        yield from self._tensors.get(path, [])


def _around(path: str) -> Iterator[str]:
    """Yield a module and those around it, from the inside out."""
    while path:
        yield path
        path = path.rpartition(".")[0]
    yield ""
