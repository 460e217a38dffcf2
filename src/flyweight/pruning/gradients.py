"""Gradient criteria: scores from a loss, in one pass over some batches."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from flyweight.errors import PlanError
from flyweight.graph.entry import plain_module
from flyweight.graph.groups import ChannelGroup, Member
from flyweight.graph.stored import copy_module, stored_tensors
from flyweight.progress import Progress, progress_of, progress_over
from flyweight.pruning.criteria import Scores, makers, score_member

Loss = Callable[[nn.Module, Any], Tensor | Mapping[str, Tensor]]
"""`(model, batch) -> scalar`, or a mapping that holds the scalar under "loss"."""


@dataclass(frozen=True, eq=False)
class Taylor:
    """First-order Taylor importance: a criterion that holds the products of weight and gradient.

    A channel's score is the sum of `(weight * gradient)**power` over every weight of every layer
    that produces it. All terms are in units of the loss (to the power), so layers are added without
    the division by their mean that norms need; for the same reason scores of different groups can
    be compared.

    Attributes:
        sums: Parameter name to the sum over batches of `|weight * gradient|**power`, float64 on
            the CPU, in the parameter's shape.
        batches: The number of batches.
        name: The name of this criterion in a plan.
        comparable: Scores of different groups have one unit; `plan_globally` does not scale them.
    """

    sums: Mapping[str, Tensor] = field(repr=False)
    batches: int
    name: str = "taylor"
    comparable: bool = True

    def __call__(self, group: ChannelGroup, tensors: Mapping[str, Tensor]) -> Scores:
        """Return one score per channel.

        Raises:
            PlanError: The group belongs to another model than the one whose loss was used.
        """
        total = np.zeros(group.size)
        for member in makers(group):
            self._require(member, tensors)
            total += score_member(group, member, self.sums[member.tensor], _sum)
        return total

    def _require(self, member: Member, tensors: Mapping[str, Tensor]) -> None:
        found = self.sums.get(member.tensor)
        if found is None or found.shape != tensors[member.tensor].shape:
            shape = "no such parameter" if found is None else f"shape {tuple(found.shape)}"
            raise PlanError(
                "A Taylor criterion must be made from the model that is planned. Received "
                f"'{member.tensor}' of shape {tuple(tensors[member.tensor].shape)}, for which the "
                f"criterion has {shape}. Make it again from this model."
            )


def _sum(filters: Tensor) -> Tensor:
    return filters.sum(-1, dtype=torch.float64)


def taylor(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Loss,
    *,
    power: Literal[1, 2] = 2,
    progress: Progress | bool = False,
) -> Taylor:
    """Return the first-order Taylor criterion (Molchanov et al. 2019, arXiv 1906.10771).

    Setting a weight w to zero changes the loss by about -w * dL/dw. A filter's importance is the
    sum over its weights of the square of that (their equation 8), added up over batches. The
    gradients are those of each batch's mean loss, so more and smaller batches give more precise
    scores.

    Args:
        model: The model whose graph is planned. The pass runs on a copy in evaluation mode: its
            weights, gradients, statistics and training flags stay as they are.
        batches: Any iterable. Tensors in tuples, lists and mappings, and objects with a method
            `to`, are moved to the model's device.
        loss: `(model, batch) -> scalar`, for example
            `lambda model, batch: cross_entropy(model(batch[0]), batch[1])`. It must use the model
            that it is given, and may switch that copy's mode where a model computes its loss in
            training mode only.
        power: 2 sums squares; 1 sums absolute values, which outliers affect less.
        progress: Receives the number of batches that are done.

    Raises:
        PlanError: No batches, or a loss or gradient that is not a finite number.
    """
    if power not in (1, 2):
        raise PlanError(f"The power of a Taylor criterion must be 1 or 2. Received {power!r}.")
    model = plain_module(model)
    # Gradients are needed, also if the caller has disabled them.
    with torch.inference_mode(False), torch.enable_grad():
        twin = copy_module(model).eval()
        weights = _weights(twin)
        device = next((weight.device for weight in weights.values()), torch.device("cpu"))
        sums = {name: torch.zeros(weight.shape).double() for name, weight in weights.items()}
        done = 0
        shown = progress_over(batches, "gradients", progress_of(progress))
        for done, batch in enumerate(shown, 1):
            value = _scalar(loss(twin, _moved(batch, device)), done)
            _add(sums, weights, value, power, done)
    if not done:
        raise PlanError(
            "A Taylor criterion needs data. Received no batches. Give an iterable of at least "
            "one batch; an iterator that was used up is empty."
        )
    return Taylor(sums, done)


def _weights(twin: nn.Module) -> dict[str, nn.Parameter]:
    stored = stored_tensors(twin)
    weights = {
        name: tensor
        for name, tensor in stored.items()
        if isinstance(tensor, nn.Parameter) and tensor.is_floating_point()
    }
    for weight in weights.values():
        weight.requires_grad_()
    return weights


def _scalar(found: Tensor | Mapping[str, Tensor], batch: int) -> Tensor:
    value = found.get("loss") if isinstance(found, Mapping) else found
    if not isinstance(value, Tensor) or value.numel() != 1:
        what = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(found).__name__
        _refuse(f"one number per batch. Received {what} for batch {batch}. Return the mean")
    if not math.isfinite(float(value.detach())):
        _refuse(
            f"finite. Received {float(value.detach())} for batch {batch}. Check this batch, or "
            "train the model first"
        )
    if not value.requires_grad:
        _refuse(
            f"computed from the weights. Received one without gradient for batch {batch}. Use the "
            "model that the loss is given, without no_grad or detach"
        )
    return value


def _refuse(rest: str) -> NoReturn:
    raise PlanError(f"The loss of a Taylor criterion must be {rest}.")


def _add(
    sums: Mapping[str, Tensor],
    weights: Mapping[str, nn.Parameter],
    value: Tensor,
    power: int,
    batch: int,
) -> None:
    gradients = torch.autograd.grad(value.sum(), list(weights.values()), allow_unused=True)
    for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
        if gradient is None:
            continue
        product = weight.detach().cpu().double() * gradient.cpu().double()
        if not bool(product.isfinite().all()):
            raise PlanError(
                "The gradient of a Taylor criterion must be finite. Received a value that is not "
                f"for '{name}' in batch {batch}. Check this batch, or use single precision."
            )
        sums[name].add_(product.abs().pow(power))


def _moved(value: Any, device: torch.device) -> Any:
    if hasattr(value, "to"):
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: _moved(item, device) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_moved(item, device) for item in value))
    if isinstance(value, list | tuple):
        return type(value)(_moved(item, device) for item in value)
    return value
