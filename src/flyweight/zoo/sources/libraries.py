"""Networks of other libraries: `timm/NAME`, `torchvision/NAME`, `smp/ARCHITECTURE-ENCODER`.

A name may come from a checkpoint, and a checkpoint may come from anywhere. So the name must be in
the list of the library (a name like `hf-hub:...`, which would start a download, is not), only the
arguments below are passed on, and weights are never requested. Nothing is downloaded or read, and
no module is imported that the library does not always import.
"""

import inspect
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from torch import Tensor, nn

from flyweight.errors import ConfigError, nearest
from flyweight.zoo import library_parts

Builder = Callable[..., nn.Module]
_SMP_SEPARATOR = "-"


class MainOutput(nn.Module):
    """A network with named outputs, reduced to the main output.

    Args:
        network: Network that returns a mapping with the scores under `out`, as the segmentation
            networks of torchvision do.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return the scores, `(n, classes, h, w)`."""
        scores: Tensor = self.network(images)["out"]
        return scores


def is_library_name(name: str) -> bool:
    """Return whether `name` has the form of a network of another library.

    Example:
        >>> is_library_name("timm/resnet18"), is_library_name("unet")
        (True, False)
    """
    library, slash, rest = name.partition("/")
    return bool(slash and rest) and library in LIBRARIES


def library_model(name: str) -> tuple[str, Builder]:
    """Return the task and the builder of a network of another library.

    The arguments of the builder are keywords with defaults. None means the default of the library.

    Args:
        name: For example `timm/mobilenetv2_100` or `torchvision/lraspp_mobilenet_v3_large`.

    Raises:
        ConfigError: The library has no such network, or is not installed.
    """
    library, _, rest = name.partition("/")
    return LIBRARIES[library](rest)


def timm_names() -> frozenset[str]:
    """Return the names of the networks of timm, without the tags of their weights."""
    return frozenset(library_parts.timm.list_models())


def _timm(name: str) -> tuple[str, Builder]:
    bare, _, tag = name.partition(".")
    _require_known(f"timm/{bare}", (f"timm/{known}" for known in timm_names()))
    if tag:
        configs = library_parts.get_arch_pretrained_cfgs(bare)
        tags = [key.partition(".")[2] for key in configs]
        _require_known(f"timm/{name}", [f"timm/{bare}.{known}" for known in tags if known])
    return "classify", partial(_build_timm, name)


def _build_timm(
    name: str,
    /,
    *,
    num_classes: int = 1000,
    drop_rate: float | None = None,
    drop_path_rate: float | None = None,
    img_size: int | None = None,
    pad_type: str | None = None,
) -> nn.Module:
    chosen = {
        "drop_rate": drop_rate,
        "drop_path_rate": drop_path_rate,
        "img_size": img_size,
        "pad_type": pad_type,
    }
    make = library_parts.timm.create_model
    return _built(make, f"timm/{name}", name, num_classes=num_classes, **chosen)


def _torchvision(name: str) -> tuple[str, Builder]:
    models = library_parts.torchvision_models
    classifiers = models.list_models(module=models)
    segmenters = models.list_models(module=models.segmentation)
    _require_known(f"torchvision/{name}", (f"torchvision/{n}" for n in classifiers + segmenters))
    if name in segmenters:
        return "segment", partial(_build_torchvision_segmenter, name)
    return "classify", partial(_build_torchvision, name)


def _build_torchvision(
    name: str,
    /,
    *,
    num_classes: int = 1000,
    dropout: float | None = None,
    stochastic_depth_prob: float | None = None,
    width_mult: float | None = None,
    image_size: int | None = None,
) -> nn.Module:
    chosen = {
        "dropout": dropout,
        "stochastic_depth_prob": stochastic_depth_prob,
        "width_mult": width_mult,
        "image_size": image_size,
        # Their second heads return outputs in training only, beside the main output.
        "aux_logits": False if name in ("googlenet", "inception_v3") else None,
        "init_weights": True if name in ("googlenet", "inception_v3") else None,
    }
    make = partial(library_parts.torchvision_models.get_model, weights=None)
    return _built(make, f"torchvision/{name}", name, num_classes=num_classes, **chosen)


def _build_torchvision_segmenter(name: str, /, *, num_classes: int = 21) -> nn.Module:
    build = library_parts.torchvision_models.get_model
    make = partial(build, weights=None, weights_backbone=None)
    return MainOutput(_built(make, f"torchvision/{name}", name, num_classes=num_classes))


def _smp(name: str) -> tuple[str, Builder]:
    try:
        smp = library_parts.segmentation_models_pytorch
    except ImportError as error:
        raise ConfigError(
            f"A network 'smp/...' must have its library installed. Received 'smp/{name}': {error}. "
            "Install it with: pip install 'flyweight[smp]'"
        ) from error
    architecture, _, encoder = name.partition(_SMP_SEPARATOR)
    architectures = sorted(smp.MODEL_ARCHITECTURES_MAPPING)
    _require_known(f"smp/{architecture}", [f"smp/{known}" for known in architectures])
    encoders = {*smp.encoders.get_encoder_names(), *(f"tu-{known}" for known in timm_names())}
    _require_known(f"smp/{name}", [f"smp/{architecture}-{known}" for known in encoders])
    return "segment", partial(_build_smp, architecture, encoder)


def _build_smp(architecture: str, encoder: str, /, *, num_classes: int = 21) -> nn.Module:
    smp = library_parts.segmentation_models_pytorch
    make = partial(smp.create_model, encoder_weights=None, encoder_name=encoder)
    whole = f"smp/{architecture}{_SMP_SEPARATOR}{encoder}"
    return _built(make, whole, architecture, classes=num_classes)


LIBRARIES: dict[str, Callable[[str], tuple[str, Builder]]] = {
    "timm": _timm,
    "torchvision": _torchvision,
    "smp": _smp,
}
"""Libraries by the part of the name before the slash."""


def _built(make: Callable[..., Any], shown: str, name: str, **arguments: Any) -> nn.Module:
    """Return the network. Arguments that are None are not passed to the library."""
    given = {key: value for key, value in arguments.items() if value is not None}
    try:
        model: nn.Module = make(name, **given)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        listed = ", ".join(f"{key}={value!r}" for key, value in given.items())
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(
            f"The arguments of a network must be valid. Received {listed} for '{shown}': "
            f"{reason}. Correct model_args or num_classes."
        ) from error
    return model


def _require_known(name: str, known: Iterable[str]) -> None:
    candidates = list(known)
    if name not in candidates:
        raise ConfigError(
            f"A network of another library must be one that it lists. Received '{name}'. "
            f"{nearest(name, candidates)}"
        )


def arguments_of(build: Builder) -> dict[str, Any]:
    """Return the keyword arguments of a builder with their defaults."""
    parameters = inspect.signature(build).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters}
