"""Whether a cut network equals the masked dense one, found without flyweight.

Nothing here is flyweight's: results are found in any container, removed channels are zeroed where
they are read, and what another tool removed is recovered from the values of the weights.
"""

import dataclasses
import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.hooks import RemovableHandle


class Constants(TorchDispatchMode):
    """Random operations give constants, so that dropout and sampling do not hide a difference."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        found = func(*args, **(kwargs or {}))
        if name in ("bernoulli", "bernoulli_"):
            return _filled(found, 1)
        if name == "native_dropout":
            return args[0].clone(), torch.ones_like(args[0], dtype=torch.bool)
        if name in ("rand", "rand_like", "randn", "randn_like", "normal", "uniform"):
            return _filled(found, 0.5)
        if name in ("normal_", "uniform_", "exponential_", "log_normal_"):
            return _filled(found, 0.5)
        if name in ("randint", "randint_like", "random_", "multinomial"):
            return _filled(found, 0)
        if name == "randperm":
            return torch.arange(len(found), dtype=found.dtype, device=found.device)
        return found


def _filled(tensor: Tensor, value: float) -> Tensor:
    return tensor.fill_(value)


def call(model: nn.Module, inputs: tuple[Sequence[Any], Mapping[str, Any]]) -> Any:
    """Run a model once with every source of random numbers at rest."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    with Constants():
        return model(*inputs[0], **inputs[1])


def dtype_of(model: nn.Module) -> torch.dtype:
    """Return the type of the first floating-point parameter of a model."""
    return next(p.dtype for p in model.parameters() if p.is_floating_point())


def values_in(result: object) -> Iterator[Tensor]:
    """Yield every tensor, array and number in a result, whatever holds it, in order."""
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, np.ndarray):
        yield torch.from_numpy(result)
    elif isinstance(result, (bool, int, float, complex)):
        yield torch.tensor(result)
    elif not isinstance(result, (str, bytes, nn.Module, type, Set)):
        for item in _items_of(result):
            yield from values_in(item)


def _items_of(result: object) -> Iterable[Any]:
    if isinstance(result, Mapping):
        return result.values()
    if dataclasses.is_dataclass(result):
        return [getattr(result, field.name) for field in dataclasses.fields(result)]
    if isinstance(result, Iterable):
        return result
    return vars(result).values() if hasattr(result, "__dict__") else ()


def difference(wanted: Sequence[Tensor], found: Sequence[Tensor]) -> float:
    """Return the largest difference relative to the largest finite value of its tensor.

    Returns:
        Infinite where numbers of results, shapes, whole numbers or places of infinities differ.
    """
    if len(wanted) != len(found):
        return math.inf
    return max((_gap(*pair) for pair in zip(wanted, found, strict=True)), default=0.0)


def _gap(wanted: Tensor, found: Tensor) -> float:
    if wanted.shape != found.shape:
        return math.inf
    if not (wanted.is_floating_point() or wanted.is_complex()):
        return 0.0 if torch.equal(wanted, found.to(wanted.dtype)) else math.inf
    wanted, found = wanted.detach(), found.detach()
    regular = torch.isfinite(wanted)
    if not torch.equal(regular, torch.isfinite(found)):
        return math.inf
    if not torch.equal(wanted[~regular].nan_to_num(), found[~regular].nan_to_num()):
        return math.inf
    if not regular.any():
        return 0.0
    scale = max(float(wanted[regular].abs().max()), 1e-12)
    return float((wanted[regular] - found[regular]).abs().max()) / scale


class Zeroed:
    """The dense network with removed channels zeroed where they are read.

    Parameters that a layer reads directly are zeroed in place. Under a parametrisation (weight
    norm, spectral norm) zeros would change the weight that is computed, so the input of the layer
    is zeroed instead.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.handles: list[RemovableHandle] = []

    def zero(self, tensor: str, axis: int, places: Tensor) -> None:
        """Zero positions of an axis of a parameter or buffer."""
        owner, _, attribute = tensor.rpartition(".")
        layer = self._layer_under(owner)
        if layer is not None:
            if getattr(self.model.get_submodule(owner), attribute).ndim < 2:
                return  # part of the computation of the weight; it meets no channel
            self.handles.append(layer.register_forward_pre_hook(_input_zeroing(layer, places)))
            return
        stored = getattr(self.model.get_submodule(owner), attribute)
        with torch.no_grad():
            stored.index_fill_(axis, places, 0)

    def release(self) -> None:
        """Take the hooks off; zeroed parameters stay so."""
        for handle in self.handles:
            handle.remove()

    def _layer_under(self, owner: str) -> nn.Module | None:
        """Return the layer whose weight is computed from the tensors of `owner`, if it is."""
        at, _, _ = owner.partition(".parametrizations.")
        if at != owner or owner.startswith("parametrizations."):
            return self.model.get_submodule(at if at != owner else "")
        module = self.model.get_submodule(owner)
        hooked = hasattr(module, "weight_g") or hasattr(module, "weight_orig")
        return module if hooked else None


def _input_zeroing(layer: nn.Module, places: Tensor) -> Any:
    axis = -1 if isinstance(layer, nn.Linear) else 1
    groups = getattr(layer, "groups", 1)

    def zeroed(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        per = args[0].shape[axis] // groups
        every = torch.cat([places + per * group for group in range(groups)])
        return args[0].index_fill(axis, every, 0), *args[1:]

    return zeroed


def zero_by_plan(model: nn.Module, plan: Any) -> Zeroed:
    """Zero what a plan of flyweight removes where its members read it; changes `model`."""
    zeroed = Zeroed(model)
    for group in plan.groups.values():
        gone = sorted(set(range(group.channels)) - set(group.keep))
        for member in group.members:
            if member.role == "consumes":
                places = torch.as_tensor(member.positions(group.channels)[gone].ravel())
                zeroed.zero(member.tensor, member.axis, places)
    return zeroed


_READERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TURNED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def make_unique(model: nn.Module) -> None:
    """Give all weights distinct values, so that `zero_by_values` finds each again; float64."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.add_(1e-7 * torch.randn_like(parameter))


def zero_by_values(dense: nn.Module, small: nn.Module) -> list[str]:
    """Zero in `dense` what any tool removed from the weights that read channels; changes `dense`.

    The values of `small` are looked up among those of `dense`: of every output that stayed, the
    inputs that are gone become zero.

    Returns:
        Names of narrowed parameters of normalisations that mix channels: a cut through them is not
        exact by nature.
    """
    mixed = []
    layers = dict(small.named_modules())
    with torch.no_grad():
        for name, module in dense.named_modules():
            other = layers.get(name)
            if "Norm" in type(module).__name__:
                mixed += _narrowed_norm(name, module, other)
            for key, weight in module._parameters.items():
                left = getattr(other, key, None) if other is not None else None
                if weight is None or not isinstance(left, Tensor) or weight.ndim < 2:
                    continue
                if isinstance(module, _TURNED):
                    _zero_rows(weight.transpose(0, 1), left.transpose(0, 1))
                elif isinstance(module, _READERS) or key.startswith(("in_proj_w", "weight_ih")):
                    _zero_rows(weight, left)
    return mixed


def _narrowed_norm(name: str, module: nn.Module, other: nn.Module | None) -> list[str]:
    if hasattr(module, "running_mean"):
        return []  # batch and instance normalisation treat every channel by itself
    sizes = [tuple(p.shape) for p in module.parameters(recurse=False)]
    left = [tuple(p.shape) for p in other.parameters(recurse=False)] if other is not None else []
    return [name] if sizes != left else []


def _zero_rows(weight: Tensor, left: Tensor) -> None:
    """Zero in every row of `weight` that has values of `left` the values that `left` lacks."""
    if weight.shape == left.shape:
        return
    ordered, order = weight.flatten().sort()
    at = torch.searchsorted(ordered, left.flatten().contiguous()).clamp_max(len(ordered) - 1)
    known = order[at][ordered[at] == left.flatten()]
    stays = torch.zeros(weight.numel(), dtype=torch.bool)
    stays[known] = True
    stays = stays.reshape(weight.shape)
    rows = stays.flatten(1).any(1)
    weight.mul_((stays | ~rows.reshape(-1, *[1] * (weight.ndim - 1))).to(weight.dtype))


@contextmanager
def training(model: nn.Module) -> Iterator[None]:
    """Put a model into training mode and back."""
    was = {name: module.training for name, module in model.named_modules()}
    model.train()
    try:
        yield
    finally:
        for name, module in model.named_modules():
            module.training = was[name]


def trained(model: nn.Module, inputs: Any) -> tuple[list[Tensor], dict[str, bool]]:
    """Run forward and backward in training mode.

    Returns:
        The results, and for every parameter with a gradient whether it is finite.
    """
    model.zero_grad(set_to_none=True)
    with training(model), torch.enable_grad():
        found = list(values_in(call(model, inputs)))
        ways = [value for value in found if value.requires_grad]
        total = sum((value.abs().sum() for value in ways), torch.zeros(()))
        torch.autograd.backward(total)
    finite = {
        name: bool(value.grad.isfinite().all())
        for name, value in model.named_parameters()
        if value.grad is not None
    }
    model.zero_grad(set_to_none=True)
    return [value.detach() for value in found], finite
