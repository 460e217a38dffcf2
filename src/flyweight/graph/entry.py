"""Entry of a user's model: the plain module inside of wrappers, or the reason why it is refused.

`fw.trace`, `fw.prune`, `fw.repair`, `fw.scan`, `fw.export` and `fw.save` call `plain_module` first.
"""

import re
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from flyweight.errors import GraphError
from flyweight.graph.stored import wrapping_attribute

_QUANTIZED = re.compile(r"torch\..*\.quantized\.(?!.*\.FloatFunctional$)")
"""Full names of quantized modules. `FloatFunctional` is a part of networks before quantization."""
_DISTRIBUTED = re.compile(r"torch\.distributed\.fsdp\.")
_REFUSED = {_QUANTIZED: "a quantized module", _DISTRIBUTED: "a module with distributed parameters"}
"""Full name of a class, and what such a module is."""


def plain_module(model: nn.Module) -> nn.Module:
    """Return the module that runs when `model` does, without the wrappers around it.

    Wrappers are those of `torch.compile`, `DataParallel` and `DistributedDataParallel`. What is
    done with the plain module holds for the wrapped one, too: they are the same parameters.

    Args:
        model: What a user calls.

    Raises:
        GraphError: It is no module, or one that cannot be followed, such as a scripted one.
    """
    if not isinstance(model, nn.Module):
        raise GraphError(
            "A model must be a torch.nn.Module. Received an object of type "
            f"{type(model).__module__}.{type(model).__qualname__}. {_advice(model)}"
        )
    while (attribute := wrapping_attribute(model)) is not None:
        inner = getattr(model, attribute)
        if not isinstance(inner, nn.Module):
            break
        model = inner
    for path, kind, advice in _refusals(model):
        place = f" at '{path}'" if path else ""
        raise GraphError(
            "A model must consist of modules in Python with plain tensors. Received "
            f"{kind}{place} of {type(model).__name__}. {advice}"
        )
    return model


def _advice(model: object) -> str:
    if isinstance(model, (str, bytes)) or hasattr(model, "__fspath__"):
        return "Load the file first, for example with fw.load."
    if hasattr(model, "graph_module"):
        return "Give the module that it was exported from."
    if isinstance(model, type):
        return "Give an instance of the class."
    return "Give the module that computes."


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _refusals(model: nn.Module) -> Iterator[tuple[str, str, str]]:
    """Yield where a model has what cannot be followed, what it is, and what to do."""
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            if not path or any(True for _ in module.state_dict()):
                kind = "a scripted or traced module (torch.jit)"
                yield path, kind, "Give the plain module that it was made from."
            continue
        for pattern, kind in _REFUSED.items():
            if any(pattern.match(_full_name(base)) for base in type(module).__mro__):
                yield path, kind, "Give the module as it was before."
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            place = f"{path}.{name}" if path else name
            if is_lazy(tensor):
                advice = "Run the model once on the example, which gives them their shapes."
                yield place, "a parameter without a shape (of a lazy module)", advice
            elif tensor is not None and (tensor.is_quantized or _is_wrapped(tensor)):
                kind = f"a tensor of type {_full_name(type(tensor))}"
                kind = "a quantized tensor" if tensor.is_quantized else kind
                yield place, kind, "Give the module with plain tensors."


def _is_wrapped(tensor: torch.Tensor) -> bool:
    found: bool = is_traceable_wrapper_subclass(tensor)
    return found
