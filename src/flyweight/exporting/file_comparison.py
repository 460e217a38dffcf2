"""Comparison of an exported file with the network it was made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from flyweight.errors import ExportError
from flyweight.exporting.flat_inputs import Inputs
from flyweight.exporting.inference_network import InferenceNetwork
from flyweight.exporting.model_card import ModelCard
from flyweight.exporting.parity import (
    Outputs,
    detection_errors,
    distance_errors,
    label_errors,
    set_errors,
    value_errors,
)
from flyweight.runtimes.protocol import OpenModel

INTEGER_TOLERANCE = 0.35
"""Greatest error of a quantized network, see `parity.distance_errors`. One level of difference in a
layer, which rounding of equal values explains, becomes many in fifty layers."""


@dataclass(frozen=True)
class Comparison:
    """How a file is compared with PyTorch.

    A quantized network with something appended is compared in two parts: its own outputs by their
    distance, because a difference of one level in the first layer becomes many in the last; and
    what is appended exactly, on the outputs that the file itself has computed.

    Attributes:
        network: What was exported.
        card: Its description.
        inputs: Names of the inputs of the file.
        outputs: Names of the outputs of the file.
        own: Names of the network's own outputs, which the compared draft has besides; empty where
            there is one part.
        tolerance: Greatest relative error.
        runtime: Name of the runtime.
    """

    network: InferenceNetwork
    card: ModelCard
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    own: tuple[str, ...]
    tolerance: float
    runtime: str

    def errors(self, opened: OpenModel, trials: Sequence[Inputs]) -> dict[str, float]:
        """Return the largest error of every output over all trials.

        Raises:
            ExportError: The network or its file does not run on a trial.
        """
        worst = dict.fromkeys((*self.outputs, *self.own), 0.0)
        for trial in trials:
            own, made, received = self._run(opened, trial)
            errors = self._errors(made, {name: received[name] for name in self.outputs})
            if self.own:
                errors |= _integer_errors(own, received, self.network.network)
            worst = {name: max(worst[name], errors[name]) for name in worst}
        return worst

    def require_agreement(self, errors: Mapping[str, float], target: Path) -> None:
        """Check the errors.

        Raises:
            ExportError: One exceeds its tolerance.
        """
        name = max(errors, key=lambda output: errors[output] - self._allowed(output))
        if not errors[name] <= self._allowed(name):
            raise ExportError(
                f"Output '{name}' of '{target}' must agree with PyTorch within "
                f"{self._allowed(name):g} (relative). Received: {errors[name]:.3g} on "
                f"{self.runtime}. Nothing was written; check for operations that depend on chance "
                "or on training mode, or raise the tolerance knowingly."
            )

    def _allowed(self, output: str) -> float:
        """Return the greatest error of an output."""
        exact = self.outputs if self.own or not self.network.quantized else ()
        return self.tolerance if output in exact else max(self.tolerance, INTEGER_TOLERANCE)

    def _run(self, opened: OpenModel, trial: Inputs) -> tuple[Outputs, Outputs, Outputs]:
        """Return the network's own outputs, those that the file must have, and those it has."""
        taken = {item.name for item in opened.inputs}
        given: dict[str, Any] = dict(zip(self.inputs, trial, strict=True))
        try:
            found = opened.run({name: given[name].numpy() for name in given if name in taken})
            received = {name: torch.from_numpy(values) for name, values in found.items()}
            own: dict[str, torch.Tensor] = {}
            if self.own:
                own = dict(zip(self.own, self.network.own_outputs(trial).values(), strict=True))
                made = self.network.finished(trial, [received[name] for name in own])
            else:
                made = self.network.outputs(trial)
            return own, dict(zip(self.outputs, made.values(), strict=True)), received
        except Exception as error:  # whatever the model and the runtime raise
            shapes = ", ".join(f"{name} {list(item.shape)}" for name, item in given.items())
            raise ExportError(
                "A model and its file must run on the inputs that they are compared on. Received "
                f"for {shapes}: {' '.join(str(error).split())[:300]}. Nothing was written; give "
                "other inputs."
            ) from error

    def _errors(self, made: Outputs, received: Outputs) -> dict[str, float]:
        """Compare value by value, or as sets where rows have no order."""
        if self.network.quantized and not self.own:
            return _integer_errors(made, received, self.network.network)
        if self.card.outputs == "detections":
            return detection_errors(made, received, tolerance=self.tolerance)
        if self.card.outputs == "decoded" and self.card.task == "segment":
            return label_errors(made, received)
        sets = self.network.unordered
        compare = partial(set_errors, sets=sets, tolerance=self.tolerance)
        return compare(made, received) if sets else value_errors(made, received)


def _integer_errors(made: Outputs, received: Outputs, network: Any) -> dict[str, float]:
    """Return the distances; of a network that chooses rows by scores, only whether shapes fit.

    Such a network chooses other regions after the smallest difference, so rows cannot be compared.
    """
    if not getattr(network, "unordered", ()):
        return distance_errors(made, {name: received[name] for name in made})
    return {
        name: 0.0 if values.shape == received[name].shape else float("inf")
        for name, values in made.items()
    }


def own_names(network: InferenceNetwork, inputs: Inputs) -> tuple[str, ...]:
    """Return the names of a network's own outputs in a draft of two parts; else nothing."""
    if not network.in_two_parts:
        return ()
    return tuple(f"network_output_{place}" for place, _ in enumerate(network.own_outputs(inputs)))
