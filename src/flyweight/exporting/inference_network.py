"""Inference network: the copy of a model that is exported, with what is appended to it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from flyweight.errors import ExportError, FlyweightError
from flyweight.exporting.flat_inputs import FlatInputs, Inputs
from flyweight.exporting.flat_inputs import as_float32 as as_float32
from flyweight.exporting.model_card import ModelCard
from flyweight.exporting.nms import Detections
from flyweight.graph.containers import placed_tensors, with_tensors
from flyweight.graph.cutting import COMPUTING_HOOKS
from flyweight.graph.example_inputs import Example
from flyweight.graph.stored import copy_module, run_uncompiled
from flyweight.quantization.fixed_norms import as_batch_norms_
from flyweight.quantization.frozen import frozen
from flyweight.quantization.network import plan_of

_DECODED = {"classify": ("scores",), "segment": ("labels",)}


class InferenceNetwork(nn.Module):
    """A copy of a model in evaluation mode, in float32 on the CPU, without gradients.

    Weights that are computed of others (weight norm, spectral norm, masks) are stored as they are.
    Its inputs and outputs are tensors one by one, whatever the model takes and returns. A quantized
    model with something appended also returns its own outputs, first: rounding makes these differ
    from the file's, so the two parts are compared one after the other.

    Args:
        model: The model; it is not changed.
        postprocess: Called with what the model returns; None appends nothing.
        given: How the model's inputs are built from tensors; None for positional tensors.
    """

    def __init__(
        self, model: nn.Module, postprocess: nn.Module | None, given: FlatInputs | None = None
    ) -> None:
        super().__init__()
        self.quantized = plan_of(model) is not None
        self.network = store_weights(run_uncompiled(copy_module(frozen(model))))
        as_batch_norms_(self.network)  # Converters fold them.
        self.postprocess = None if postprocess is None else copy_module(postprocess)
        self.given = given
        self.cpu().float().eval()
        self.requires_grad_(False)

    @property
    def in_two_parts(self) -> bool:
        """Whether the model's own outputs are returned, too."""
        return self.quantized and self.postprocess is not None

    @property
    def unordered(self) -> tuple[tuple[str, ...], ...]:
        """Groups of output names whose rows belong together and have no defined order."""
        last = self.network if self.postprocess is None else self.postprocess
        found: tuple[tuple[str, ...], ...] = getattr(last, "unordered", ())
        return found

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors that the model, or else what is appended, returns."""
        made = self._made(inputs)
        parts = (made, self._finished(made)) if self.in_two_parts else (self._finished(made),)
        return tuple(tensor for part in parts for _, tensor in placed_tensors(part))

    def outputs(self, inputs: Inputs) -> dict[str, Tensor]:
        """Return the outputs by their place: `.boxes` in a named tuple, `[0]` in a plain one.

        Raises:
            GraphError: There is an output that cannot be followed.
        """
        with torch.no_grad():
            return _by_place(self._finished(self._made(inputs)))

    def own_outputs(self, inputs: Inputs) -> dict[str, Tensor]:
        """Return the outputs of the model itself, by their place."""
        with torch.no_grad():
            return _by_place(self._made(inputs))

    def finished(self, inputs: Inputs, own: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return what is made of given outputs of the model, by their place.

        Args:
            inputs: Inputs for which the model returns outputs of this structure.
            own: The outputs to use, in the order of `own_outputs`.
        """
        with torch.no_grad():
            given = iter(own)
            filled = with_tensors(self._made(inputs), lambda _: next(given))
            return _by_place(self._finished(filled))

    def _made(self, inputs: Inputs) -> Any:
        example = Example(inputs) if self.given is None else self.given.filled(inputs)
        return self.network(*example.args, **example.kwargs)

    def _finished(self, made: Any) -> Any:
        return made if self.postprocess is None else self.postprocess(made)

    def output_names(
        self, inputs: Inputs, card: ModelCard, given: tuple[str, ...]
    ) -> tuple[str, ...]:
        """Return the names of the outputs in the file.

        Args:
            inputs: Inputs to call the network with.
            card: States the last step of the graph (`outputs`) and the task.
            given: The caller's names; empty means the default of `OnnxConfig.output_names`.

        Raises:
            ExportError: The network does not run on the inputs; there are more or fewer names than
                outputs, or a name occurs twice.
            GraphError: There is an output that cannot be followed.
        """
        places = list(self._first_outputs(inputs))
        count = len(places)
        own: tuple[str, ...] | None = getattr(self.postprocess, "output_names", None)
        decoded = _DECODED.get(card.task, Detections.output_names)
        if given:
            names = given
        elif own is not None and len(own) == count:
            names = own
        elif all(place.startswith(".") for place in places):
            names = tuple(place[1:].replace(".", "_") for place in places)
        elif card.outputs != "raw" and count <= len(decoded):
            names = decoded[:count]
        else:
            names = tuple(f"output_{index}" for index in range(count))
        if len(names) != count or len(set(names)) != count:
            raise ExportError(
                f"The model returns {count} outputs, so {count} different names must be given. "
                f"Received: {', '.join(names)}. Correct the output names."
            )
        return names

    def _first_outputs(self, inputs: Inputs) -> dict[str, Tensor]:
        try:
            found = self.outputs(inputs)
        except FlyweightError:
            raise
        except Exception as error:  # whatever the code of the model raises
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise ExportError(
                "The model must run on the example of the export. Received from "
                f"{type(self.network).__name__}: {reason}. Give inputs that its forward takes."
            ) from error
        if not found:
            raise ExportError(
                "A model must return tensors to be exported. Received none from "
                f"{type(self.network).__name__}. Return what it computes."
            )
        return found


def _by_place(value: Any) -> dict[str, Tensor]:
    return {place.removeprefix("output"): tensor for place, tensor in placed_tensors(value)}


def store_weights(model: nn.Module) -> nn.Module:
    """Return `model`, changed in place, with plain parameters where weights were computed.

    A weight is computed by a parametrization, or by the hooks of PyTorch for weight norm, spectral
    norm and masks, which set an attribute before the layer runs.
    """
    model.eval()  # Spectral norm estimates its vectors in training.
    with torch.no_grad():
        for module in model.modules():
            for key, hook in list(module._forward_pre_hooks.items()):
                if isinstance(hook, COMPUTING_HOOKS):
                    hook.remove(module)
                    del module._forward_pre_hooks[key]
            if is_parametrized(module):
                _store_parametrized(module)
    return model


def _store_parametrized(module: nn.Module) -> None:
    # PyTorch's own function for this changes the class, which is that of the user's module, too.
    parametrizations: Any = module.parametrizations
    computed = {name: weight().detach().clone() for name, weight in parametrizations.items()}
    del module._modules["parametrizations"]
    module.__class__ = type(module).__bases__[0]
    for name, weight in computed.items():
        module.register_parameter(name, nn.Parameter(weight, requires_grad=False))
