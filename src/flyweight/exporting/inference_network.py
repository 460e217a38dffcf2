"""Inference network: the copy of a model that is exported, with what is appended to it."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from flyweight.errors import ExportError
from flyweight.exporting.model_card import ModelCard
from flyweight.exporting.nms import Detections
from flyweight.zoo.backbones.blocks import thaw_norms

Example = tuple[Tensor, ...]

_DECODED = {"classify": ("scores",), "segment": ("labels",)}


class InferenceNetwork(nn.Module):
    """A copy of a model in evaluation mode, in float32 on the CPU, without gradients.

    Args:
        model: The model; it is not changed.
        postprocess: Called with what the model returns; None appends nothing.
    """

    def __init__(self, model: nn.Module, postprocess: nn.Module | None) -> None:
        super().__init__()
        self.network = copy.deepcopy(model)
        thaw_norms(self.network)
        self.postprocess = copy.deepcopy(postprocess)
        self.cpu().float().eval()
        self.requires_grad_(False)

    @property
    def unordered(self) -> tuple[tuple[str, ...], ...]:
        """Groups of output names whose rows belong together and have no defined order."""
        last = self.network if self.postprocess is None else self.postprocess
        found: tuple[tuple[str, ...], ...] = getattr(last, "unordered", ())
        return found

    def forward(self, *inputs: Tensor) -> Any:
        """Return what the model, or else what is appended, returns."""
        outputs = self.network(*inputs)
        return outputs if self.postprocess is None else self.postprocess(outputs)

    def outputs(self, inputs: Example) -> dict[str, Tensor]:
        """Return the outputs by their place: `.boxes` in a named tuple, `[0]` in a plain one."""
        with torch.no_grad():
            leaves, _ = torch.utils._pytree.tree_flatten_with_path(self(*inputs))
        keyed = ((torch.utils._pytree.keystr(path), leaf) for path, leaf in leaves)
        return {place: leaf for place, leaf in keyed if isinstance(leaf, Tensor)}

    def output_names(
        self, inputs: Example, card: ModelCard, given: tuple[str, ...]
    ) -> tuple[str, ...]:
        """Return the names of the outputs in the file.

        Args:
            inputs: Inputs to call the network with.
            card: States the last step of the graph (`outputs`) and the task.
            given: The caller's names; empty means the default of `OnnxConfig.output_names`.

        Raises:
            ExportError: There are more or fewer names than outputs, or a name occurs twice.
        """
        places = list(self.outputs(inputs))
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


def as_float32(tensor: Tensor) -> Tensor:
    """Return a tensor on the CPU, in float32 unless it holds whole numbers."""
    plain = tensor.detach().cpu()
    return plain.float() if plain.is_floating_point() else plain
