"""The comparisons of a cut network with the masked dense one: what is run, and the verdict."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from coverage_case import Case, Inputs, in_precision
from coverage_oracle import call, difference, dtype_of, trained, values_in
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}
_NUDGES = {torch.float64: 1e-14, torch.float32: 1e-6}
CHEAP = 5_000_000_000
"""Multiply-adds from which an example is too slow in double precision."""
_TRAINING_CHEAP = 1_000_000_000
_SIDES = (32, 48, 64, 96, 128, 160, 192, 224, 256)


class CaseError(Exception):
    """The end of a case: status and reason."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Checks:
    """Compares a network that was cut with the dense one, in both modes and at two sizes.

    `look` runs the dense network as it was. Then the caller zeroes its removed channels, and
    `compare` runs both.

    Args:
        case: The network and its inputs.
        dense: The network before the cut.
        macs: Multiply-adds of its example, which decide on the size of the inputs.
        phases: Has `report` for columns, and names what is going on.
    """

    def __init__(self, case: Case, dense: nn.Module, macs: int, phases: Any) -> None:
        self.case, self.dense, self.macs = case, dense, macs
        self.phase: Callable[..., AbstractContextManager[None]] = phases
        self.report: Callable[..., None] = phases.report
        self.done: list[str] = []
        self.precision = dtype_of(dense)

    def look(self) -> None:
        """Choose the inputs of the evaluation and run the dense network on them."""
        with self.phase("run"):
            self.side, self.inputs, self.before = self._first("evaluation", self._evaluations())

    def compare(self, small: nn.Module, *, effect: bool) -> None:
        """Compare in evaluation mode, at another size, and in training mode.

        Args:
            small: The network after the cut.
            effect: Something was removed, so that results must differ from those before.

        Raises:
            CaseError: They are not the same, or `small` does not run.
        """
        with self.phase("compare"):
            found = _evaluated(small, self.inputs)
            modes = {name: module.training for name, module in self.dense.named_modules()}
            if any(modes.get(n, m.training) != m.training for n, m in small.named_modules()):
                raise CaseError("wrong", "compare: evaluation mode was not kept")
            error = difference(_evaluated(self.dense, self.inputs), found)
            self.report(max_error=f"{error:.2g}")
            self._require(error, "compare")
            if effect and difference(self.before, found) < 1e-6:
                raise CaseError(
                    "wrong", "compare: the removed channels have no effect on this input"
                )
        self._second_size(small)
        self._training(small)
        self.report(checked="; ".join(self.done))

    def _evaluations(self) -> Iterator[tuple[int, int]]:
        if self.macs > CHEAP:
            yield from ((self.case.batch, side) for side in _SIDES if side < self.case.side)
        yield self.case.batch, self.case.side

    def _first(
        self, what: str, candidates: Iterator[tuple[int, int]]
    ) -> tuple[int, Inputs, list[Tensor]]:
        """Return the first side that the dense network accepts, its inputs and results."""
        failure: Exception | None = None
        for batch, side in candidates:
            try:
                inputs = in_precision(self.case.call(batch, side), self.precision)
                results = _evaluated(self.dense, inputs)
            except Exception as error:  # noqa: BLE001 - whatever a network raises is its refusal
                failure = error
                continue
            if not any(value.numel() and value.isfinite().all() for value in results):
                continue
            self._note(what, batch, side)
            return side, inputs, results
        raise failure or RuntimeError("no finite results")

    def _second_size(self, small: nn.Module) -> None:
        with self.phase("second size"):
            try:
                others = self.case.second_calls(self.side)
                _, inputs, wanted = self._first("second size", others)
            except Exception:  # noqa: BLE001 - whatever a network raises is its refusal
                self.done.append("no second size")
                return
            error = difference(wanted, _evaluated(small, inputs))
            self.report(second_error=f"{error:.2g}")
            self._require(error, "second size")

    def _trainings(self) -> Iterator[tuple[int, int]]:
        sides = [side for side in _SIDES if side < self.case.side] + [self.case.side]
        batch = max(self.case.batch, 2)
        if self.macs > _TRAINING_CHEAP:
            yield from ((batch, side) for side in sides)
        yield from ((count, self.case.side) for count in (batch, batch + 2))

    def _training(self, small: nn.Module) -> None:
        with self.phase("training"):
            failure = "no inputs"
            for batch, side in self._trainings():
                try:
                    made = self.case.call(batch, side, training=True)
                    inputs = in_precision(made, self.precision)
                    wanted, gradients = trained(self.dense, inputs)
                except Exception as error:  # noqa: BLE001 - whatever a network raises
                    failure = f"{type(error).__name__}: {error}"[:80]
                    continue
                found, kept = trained(small, inputs)
                error = difference(wanted, found)
                if not error <= TOLERANCE[self.precision] and self._amplifies(inputs, wanted):
                    failure = "the dense network makes more of a rounding error than is allowed"
                    continue
                self._note("training", batch, side)
                self._require_trained(error, gradients, kept)
                return
            if "nference tensor" in failure:
                raise CaseError("wrong", f"training of the dense network: {failure}")
            self.done.append(f"no training: {failure}")

    def _amplifies(self, inputs: Inputs, wanted: list[Tensor]) -> bool:
        """Whether results change as much when the inputs change in their last digits.

        Normalisation of a batch divides by its deviation, which may be next to nothing for two
        images of one pixel in the last layers.
        """
        size = _NUDGES[self.precision]
        moved = tree_map_only(Tensor, lambda one: _nudged(one, size), inputs)
        return not difference(wanted, trained(self.dense, moved)[0]) <= TOLERANCE[self.precision]

    def _require_trained(
        self, error: float, wanted: dict[str, bool], found: dict[str, bool]
    ) -> None:
        self.report(training_error=f"{error:.2g}")
        self._require(error, "training")
        missing = sorted(set(wanted) - set(found))
        if missing:
            raise CaseError("crashed", f"training: no gradient for {', '.join(missing)}")
        broken = sorted(name for name, fine in wanted.items() if fine and not found[name])
        if broken:
            raise CaseError("wrong", f"training: gradient is not finite: {', '.join(broken)}")

    def _require(self, error: float, what: str) -> None:
        if not error <= TOLERANCE[self.precision]:
            raise CaseError("wrong", f"{what}: relative error {error:.2g}")

    def _note(self, what: str, batch: int, side: int) -> None:
        shape = "x".join(map(str, (batch, *self.case.shape[-3:-2], side)))
        self.done.append(f"{what} {shape}")
        self.report(checked="; ".join(self.done))


def _nudged(tensor: Tensor, size: float) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    pattern = torch.linspace(-size, size, tensor.numel(), dtype=tensor.dtype)
    return tensor + pattern.view(tensor.shape)


def _evaluated(model: nn.Module, inputs: Inputs) -> list[Tensor]:
    with torch.no_grad():
        return list(values_in(call(model, inputs)))
