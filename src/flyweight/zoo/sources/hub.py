"""Pretrained weights from timm's and torchvision's hubs, when the machine is online.

Nothing is unpickled: of timm's only `.safetensors` files are taken, and torchvision's `.pth` are
read by PyTorch's loader of plain tensors (`weights_only=True`), after their digest was compared.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from flyweight.errors import CheckpointError, ConfigError

Tensors = dict[str, Tensor]
_TIMM_FILE = "model.safetensors"


def hub_weights(word: str, architecture: str, arguments: Mapping[str, Any]) -> tuple[str, Tensors]:
    """Fetch the weights of a network, or of its backbone.

    Args:
        word: A key of `HUBS`.
        architecture: Name of the network in the zoo, or of another library's.
        arguments: Of its builder; `backbone` names what a network of the zoo stands on.

    Returns:
        Where they come from, and the tensors.

    Raises:
        ConfigError: The hub has none for this network.
        CheckpointError: They cannot be fetched: the machine is offline, or the hub is.
    """
    library, _, name = architecture.partition("/")
    if not name:
        library, name = _UNDERNEATH.get(architecture, ("", ""))
        name = arguments.get("backbone", name)
    if library != word or not name:
        hint = f"pretrain_weights: {library}" if library in HUBS else "a file"
        raise ConfigError(
            f"pretrain_weights '{word}' must go with a network of {word}. Received model "
            f"'{architecture}'. Give {hint}, or leave pretrain_weights out."
        )
    return HUBS[word](name)


_UNDERNEATH = {
    "deeplabv3p": ("timm", "mobilenetv2_100"),
    "yolov3_mobilenet_v1": ("timm", "mobilenetv1_100"),
    "yolov3_r34": ("torchvision", "resnet34"),
    "yolov3_r50vd_dcn": ("timm", "resnet50d"),
    "lraspp_mobilenet_v3_large": ("torchvision", "lraspp_mobilenet_v3_large"),
}
"""What networks of the zoo are made of: a library, and a name of it."""


def _from_timm(name: str) -> tuple[str, Tensors]:
    from huggingface_hub import hf_hub_download
    from safetensors.torch import load_file
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        raise ConfigError(
            f"timm must have weights of the network. Received '{name}', of which it has none. "
            "Leave pretrain_weights out."
        )
    where = config.hf_hub_id
    if where.endswith("/"):
        where += f"{name.partition('.')[0]}.{config.tag}"
    path = _fetched(lambda: hf_hub_download(where, _TIMM_FILE), f"{where}/{_TIMM_FILE}")
    return where, load_file(path)


def _from_torchvision(name: str) -> tuple[str, Tensors]:
    from torch.hub import load_state_dict_from_url
    from torchvision.models import get_model_weights

    weights = get_model_weights(name).DEFAULT
    tensors: Tensors = _fetched(
        lambda: load_state_dict_from_url(
            weights.url, map_location="cpu", weights_only=True, check_hash=True, progress=False
        ),
        weights.url,
    )
    return f"torchvision {weights}", tensors


HUBS: Mapping[str, Callable[[str], tuple[str, Tensors]]] = {
    "timm": _from_timm,
    "torchvision": _from_torchvision,
}
"""The words that stand for a hub in `pretrain_weights`."""


def _fetched(fetch: Callable[[], Any], where: str) -> Any:
    try:
        return fetch()
    except Exception as error:  # the clients' errors have no common base
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CheckpointError(
            f"Weights must be fetched from '{where}'. Received: {reason}. Check that this machine "
            "is online, or give the path of a file that was fetched elsewhere."
        ) from error
