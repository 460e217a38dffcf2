"""Weights that are divided by their own norm: the scale beside them is corrected by a cut.

Weight normalisation (Salimans & Kingma 2016, https://arxiv.org/abs/1602.07868) computes a layer's
weight as `g * v / norm(v)`. Inputs that leave make the norm smaller, and so everything that stays
larger. The stored scale is multiplied by the share of the norm that stays, so that the weight is
what it was (design note 0023).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Factors = Mapping["Stored | Norm", float]
"""What a tensor is the product of, each with its exponent."""


@dataclass(frozen=True)
class Rescaled:
    """A stored scale, and the stored weight by whose norm the code divides it.

    Attributes:
        scale: Name of the scale.
        weight: Name of the weight.
        axes: Axes of the weight that the norm is taken over.
        order: Of the norm; 2 is the Euclidean one.
    """

    scale: str
    weight: str
    axes: tuple[int, ...]
    order: float = 2.0

    def share(self, before: Tensor, after: Tensor) -> Tensor:
        """Return which share of every norm stays, in float64, with axes of one for `axes`.

        Args:
            before: The weight.
            after: The weight with zeros in place of what leaves, or without it along `axes`.
        """
        whole, rest = (
            torch.linalg.vector_norm(one.detach().double(), self.order, self.axes, keepdim=True)
            for one in (before, after)
        )
        # Where there was nothing, nothing changes.
        return torch.where(whole == 0, torch.ones_like(whole), rest / whole)


def correct(scale: Tensor, share: Tensor) -> None:
    """Multiply a scale by the share of its norm that stays, in place."""
    factor = share.reshape(()) if share.numel() == 1 else share.reshape(scale.shape)
    with torch.no_grad():
        scale.copy_((scale.detach().double() * factor).to(scale.dtype))


def place_of_zeros(
    tensors: Mapping[str, Tensor], weight: str, axis: int, rescaled: Rescaled | None
) -> Tensor:
    """Return the tensor in which zeros along an axis of a stored weight make it read nothing.

    A norm of zeros alone has no quotient: where every position of the axis has a norm of its own,
    its scale is set to zero instead.

    Args:
        tensors: Stored tensors by name.
        weight: Name of the weight.
        axis: Its axis that reads channels.
        rescaled: The scale beside it, if the code divides it by its norm.

    Returns:
        The weight, or its scale in a shape of as many axes.
    """
    if rescaled is None or axis in rescaled.axes:
        return tensors[weight]
    shape = tensors[weight].shape
    kept = [1 if place in rescaled.axes else size for place, size in enumerate(shape)]
    return tensors[rescaled.scale].detach().view(kept)


@dataclass(frozen=True, eq=False)
class Stored:
    """A stored tensor as a factor.

    Attributes:
        name: Its name.
        shape: Its sizes.
        first: The first identity of every axis that has some, by axis.
    """

    name: str
    shape: tuple[int, ...]
    first: Mapping[int, int]


@dataclass(frozen=True, eq=False)
class Norm:
    """A norm of a stored tensor as a factor.

    Attributes:
        weight: The tensor.
        axes: Its axes that the norm is taken over.
        order: Of the norm.
        ids: The identities that the norm sums over.
        place: The operation, as text.
    """

    weight: Stored
    axes: tuple[int, ...]
    order: float
    ids: NDArray[np.int64]
    place: str

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes of the axes that stay, without ones."""
        shape = enumerate(self.weight.shape)
        return tuple(size for axis, size in shape if size > 1 and axis not in self.axes)


@dataclass(frozen=True, eq=False)
class Scaled:
    """A scale beside a norm.

    Attributes:
        norm: In the denominator.
        scale: In the numerator.
        aligned: Whether the scale is known to have the values of the norm in their order.
    """

    norm: Norm
    scale: Stored
    aligned: bool = False

    @property
    def correction(self) -> Rescaled:
        """What a cut has to correct."""
        norm = self.norm
        return Rescaled(self.scale.name, norm.weight.name, norm.axes, norm.order)

    def fits(self, labels: NDArray[np.int64]) -> bool:
        """Whether the scale has a value for each position of the axes that the norm leaves.

        Args:
            labels: Equal numbers for identities that leave together.
        """
        shape = self.norm.weight.shape
        kept = [1 if axis in self.norm.axes else size for axis, size in enumerate(shape)]
        if self.aligned or list(self.scale.shape) == kept:
            return True
        own, whole = (_labels_of(one, labels) for one in (self.scale, self.norm.weight))
        wanted = [found for axis, found in whole.items() if axis not in self.norm.axes]
        others = [found for axis, found in whole.items() if axis in self.norm.axes]
        # Where an axis that is summed over has the same channels, it may be that one's scale.
        return list(own.values()) == wanted and not any(found in wanted for found in others)


def _labels_of(tensor: Stored, labels: NDArray[np.int64]) -> dict[int, list[int]]:
    """Return the labels along every axis that has some."""
    starts = tensor.first.items()
    return {axis: labels[first : first + tensor.shape[axis]].tolist() for axis, first in starts}


@dataclass
class Norms:
    """The norms of stored tensors that a trace met.

    Attributes:
        found: All of them.
        scaled: Those that a stored scale stands beside.
        plain: Factors that something else uses, too.
    """

    found: list[Norm] = field(default_factory=list)
    scaled: list[Scaled] = field(default_factory=list)
    plain: set["Stored | Norm"] = field(default_factory=set)

    def settled(
        self, labels: NDArray[np.int64]
    ) -> tuple[tuple[Rescaled, ...], list[tuple[NDArray[np.int64], str]]]:
        """Return what a cut corrects, and what uncorrected norms compute across, with their places.

        Args:
            labels: Equal numbers for identities that leave together.
        """
        sound, mixing = dict[Rescaled, None](), []
        for norm in self.found:
            correction = self._correction(norm, labels)
            if correction is None:
                mixing.append((norm.ids, norm.place))
            else:
                sound[correction] = None
        return tuple(sound), mixing

    def _correction(self, norm: Norm, labels: NDArray[np.int64]) -> Rescaled | None:
        beside = [one for one in self.scaled if one.norm is norm]
        if len(beside) != 1 or not self.plain.isdisjoint((norm, beside[0].scale)):
            return None
        # A scale that stands beside several norms can be right for one of them only.
        same = {one.correction for one in self.scaled if one.scale is beside[0].scale}
        return beside[0].correction if len(same) == 1 and beside[0].fits(labels) else None
