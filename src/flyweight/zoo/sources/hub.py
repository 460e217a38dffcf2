"""Download of pretrained weights from the hubs of timm and torchvision.

Nothing is unpickled. From timm only `.safetensors` files are read. The `.pth` files of torchvision
are read by the loader of PyTorch for plain tensors (`weights_only=True`), after their digest was
compared.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch.hub
from safetensors.torch import load_file
from torch import Tensor

from flyweight.errors import CheckpointError, ConfigError
from flyweight.zoo import library_parts

Tensors = dict[str, Tensor]
_TIMM_FILE = "model.safetensors"


def hub_weights(word: str, architecture: str, arguments: Mapping[str, Any]) -> tuple[str, Tensors]:
    """Download the weights of a network or of its backbone.

    Args:
        word: A key of `HUBS`.
        architecture: Name of the network in the zoo or in another library.
        arguments: Arguments of its builder; `backbone` names the backbone of a network of the zoo.

    Returns:
        The place that the weights come from, and the tensors by name.

    Raises:
        ConfigError: The hub has no weights for this network.
        CheckpointError: The download failed, because the machine or the hub is offline.
    """
    library, _, name = architecture.partition("/")
    if not name:
        library, name = _BACKBONES.get(architecture, ("", ""))
        name = arguments.get("backbone", name)
    if library != word or not name:
        hint = f"pretrain_weights: {library}" if library in HUBS else "a file"
        raise ConfigError(
            f"pretrain_weights '{word}' must go with a network of {word}. Received model "
            f"'{architecture}'. Give {hint}, or leave pretrain_weights out."
        )
    return HUBS[word](name)


_BACKBONES = {
    "deeplabv3p": ("timm", "mobilenetv2_100"),
    "yolov3_mobilenet_v1": ("timm", "mobilenetv1_100"),
    "yolov3_r34": ("torchvision", "resnet34"),
    "yolov3_r50vd_dcn": ("timm", "resnet50d"),
    "lraspp_mobilenet_v3_large": ("torchvision", "lraspp_mobilenet_v3_large"),
}
"""Source of the backbone (or of the whole network): a library and a name in it."""


def _from_timm(name: str) -> tuple[str, Tensors]:
    config = library_parts.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        raise ConfigError(
            f"timm must have weights of the network. Received '{name}', for which timm has no "
            "weights. Leave pretrain_weights out."
        )
    where = config.hf_hub_id
    if where.endswith("/"):
        where += f"{name.partition('.')[0]}.{config.tag}"
    download = library_parts.hf_hub_download
    path = _fetched(lambda: download(where, _TIMM_FILE), f"{where}/{_TIMM_FILE}")
    return where, load_file(path)


def _from_torchvision(name: str) -> tuple[str, Tensors]:
    weights = library_parts.get_model_weights(name).DEFAULT
    tensors: Tensors = _fetched(
        lambda: torch.hub.load_state_dict_from_url(
            weights.url, map_location="cpu", weights_only=True, check_hash=True, progress=False
        ),
        weights.url,
    )
    return f"torchvision {weights}", tensors


HUBS: Mapping[str, Callable[[str], tuple[str, Tensors]]] = {
    "timm": _from_timm,
    "torchvision": _from_torchvision,
}
"""Names of the hubs in `pretrain_weights`."""


def _fetched(fetch: Callable[[], Any], where: str) -> Any:
    try:
        return fetch()
    except Exception as error:  # the errors of the clients have no common base class
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CheckpointError(
            f"Weights must be fetched from '{where}'. Received: {reason}. Check that this machine "
            "is online, or give the path of a file that was downloaded elsewhere."
        ) from error
