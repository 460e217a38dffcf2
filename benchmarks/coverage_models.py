"""The networks that the coverage benchmark runs on: how each is built, with which inputs.

Nothing is downloaded. `randomise` gives every network values under which a mistake shows: no
normalisation, layer scale or residual branch is left at zero or one.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from torchvision.models import detection
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.ops import FrozenBatchNorm2d

from flyweight.zoo import create
from flyweight.zoo.specs import SPECS

TIMM_MODELS = Path(__file__).resolve().with_name("coverage_timm_models.txt")
DOUBLE_UP_TO = 110_000_000
"""Networks of more parameters than this run in float32."""

_CONVOLUTIONAL_SIDE, _ATTENTION_SIDE, _DETECTION_SIDE = 96, 224, 320


@dataclass(frozen=True)
class Case:
    """One network of the benchmark.

    Attributes:
        suite: Name of its suite.
        name: Its name within the suite.
        build: Makes it, with random weights.
        shape: Shape of its image tensor; a detector takes a list of one image.
        heads: Pattern of the layers whose outputs are the network's outputs. Only Torch-Pruning
            has to be told; without a pattern they are the layers with as many outputs as `classes`.
        classes: Number of classes.
    """

    suite: str
    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    heads: str = ""
    classes: int = 1000

    def example(self) -> tuple[Any, ...]:
        """Return arguments for `forward`, float32, values from a normal distribution."""
        image = torch.randn(self.shape)
        return (image,) if len(self.shape) == 4 else ([image],)

    def output_layers(self, model: nn.Module) -> list[nn.Module]:
        """Return the layers that make the outputs of `model`."""
        layers = (nn.Linear, nn.Conv2d)
        named = [(name, module) for name, module in model.named_modules()]
        if self.heads:
            return [m for n, m in named if isinstance(m, layers) and re.search(self.heads, n)]
        return [m for _, m in named if isinstance(m, layers) and _outputs(m) == self.classes]


def _outputs(layer: nn.Linear | nn.Conv2d) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def fresh(args: tuple[Any, ...], precision: torch.dtype) -> tuple[Any, ...]:
    """Return arguments like `args` with new random values."""

    def redrawn(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        return torch.randn_like(tensor, dtype=precision)

    return tuple(tree_map_only(Tensor, redrawn, args))


def cases_of(suite: str) -> list[Case]:
    """Return the networks of a suite."""
    return list(SUITES[suite]())


def _classification() -> Iterator[Case]:
    for name in torchvision.models.list_models(module=torchvision.models):
        options: dict[str, Any] = {}
        if name in ("googlenet", "inception_v3"):
            options = {"init_weights": False, "aux_logits": False}
        attention = name.startswith(("vit", "swin", "maxvit"))
        side = _ATTENTION_SIDE if attention else _CONVOLUTIONAL_SIDE
        build = partial(torchvision.models.get_model, name, weights=None, **options)
        yield Case("torchvision-classification", name, build, (1, 3, side, side))


def _segmentation() -> Iterator[Case]:
    for name in torchvision.models.list_models(module=torchvision.models.segmentation):
        build = partial(torchvision.models.get_model, name, weights=None, weights_backbone=None)
        shape = (1, 3, _CONVOLUTIONAL_SIDE, _CONVOLUTIONAL_SIDE)
        yield Case("torchvision-segmentation", name, build, shape, classes=21)


_DETECTOR_HEADS = (
    r"cls_logits$|bbox_pred$|cls_score$|bbox_reg$|bbox_ctrness$|mask_fcn_logits$"
    r"|kps_score_lowres$|(classification|regression)_head\.module_list\.\d+(\.1)?$"
)


def _detection() -> Iterator[Case]:
    case = partial(
        Case,
        "torchvision-detection",
        shape=(3, _DETECTION_SIDE, _DETECTION_SIDE),
        heads=_DETECTOR_HEADS,
    )
    for name in torchvision.models.list_models(module=detection):
        options = {"weights": None, "weights_backbone": None, **_detector_options(name)}
        yield case(name, partial(torchvision.models.get_model, name, **options))
    for name in ("fasterrcnn_resnet50_fpn", "retinanet_resnet50_fpn"):
        yield case(f"{name}+frozenbn", partial(_frozen_detector, name))


def _detector_options(name: str) -> dict[str, Any]:
    """Keep low scores, so that random weights lead to boxes that can be compared."""
    if name.startswith("ssd"):
        return {"score_thresh": 0.001, "topk_candidates": 50, "detections_per_img": 50}
    sides: dict[str, Any] = {"min_size": _DETECTION_SIDE, "max_size": 2 * _DETECTION_SIDE}
    if "rcnn" in name:
        few = {"rpn_post_nms_top_n_test": 20, "box_score_thresh": 0.0}
        return sides | few | {"box_detections_per_img": 8}
    return sides | {"score_thresh": 0.001, "topk_candidates": 50, "detections_per_img": 50}


def _frozen_detector(name: str) -> nn.Module:
    """Build a detector as its pretrained weights have it, with FrozenBatchNorm2d."""
    body = torchvision.models.resnet50(weights=None, norm_layer=FrozenBatchNorm2d)
    if name.startswith("fasterrcnn"):
        backbone = _resnet_fpn_extractor(body, 5)
        return cast(nn.Module, detection.FasterRCNN(backbone, 91, **_detector_options(name)))
    pyramid = torchvision.ops.feature_pyramid_network.LastLevelP6P7(256, 256)
    backbone = _resnet_fpn_extractor(body, 5, returned_layers=[2, 3, 4], extra_blocks=pyramid)
    return cast(nn.Module, detection.RetinaNet(backbone, 91, **_detector_options(name)))


def _zoo() -> Iterator[Case]:
    for name in SPECS:
        yield Case("zoo", name, partial(create, name), (1, 3, 96, 96), r"^yolo_output\.")


def _timm() -> Iterator[Case]:
    for line in TIMM_MODELS.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            _, name, side = line.split()[:3]
            yield Case(
                "timm", name, partial(build_timm, name, int(side)), (1, 3, *(int(side),) * 2)
            )


def build_timm(name: str, side: int) -> nn.Module:
    """Build a timm network for images of `side` x `side`, where it has to know."""
    try:
        model: nn.Module = timm.create_model(name, pretrained=False, img_size=side)
    except TypeError:
        model = timm.create_model(name, pretrained=False)
    return model


SUITES: dict[str, Callable[[], Iterator[Case]]] = {
    "torchvision-classification": _classification,
    "torchvision-segmentation": _segmentation,
    "torchvision-detection": _detection,
    "zoo": _zoo,
    "timm": _timm,
}


def randomise(model: nn.Module, args: tuple[Any, ...]) -> None:
    """Give `model` values under which every channel counts.

    Parameters that are constant (affine parameters of normalisations, layer scales, branches that
    begin at zero) become random; statistics of batch normalisations are set to those of `args` and
    then shifted by about a third of a standard deviation.
    """
    for module in model.modules():
        stored: list[tuple[str, Tensor | None]] = [*module._parameters.items()]
        if isinstance(getattr(module, "running_var", None), Tensor):
            stored += [item for item in module._buffers.items() if item[0] in ("weight", "bias")]
        for name, tensor in stored:
            if tensor is not None and tensor.is_floating_point() and tensor.numel():
                _randomise(name, tensor)
    calibrate(model, args)


@torch.no_grad()
def _randomise(name: str, tensor: Tensor) -> None:
    if tensor.numel() > 1 and float(tensor.max() - tensor.min()) > 1e-12:
        return
    if name.endswith(("bias", "beta")):
        tensor.normal_(0, 0.2)
    elif tensor.numel() == max(tensor.shape, default=1):
        tensor.uniform_(0.5, 1.5)
    else:
        tensor.normal_(0, max(tensor[0].numel() ** -0.5, 0.02))


@torch.no_grad()
def calibrate(model: nn.Module, args: tuple[Any, ...]) -> None:
    """Set running statistics to what `args` give, slightly wrong, layer after layer."""

    def settle(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        mean, variance = cast(Tensor, module.running_mean), cast(Tensor, module.running_var)
        values: Tensor = inputs[0]
        if values.ndim < 2 or values.shape[1] != len(mean) or not values.numel():
            return
        rows = values.transpose(0, 1).flatten(1)
        spread = rows.std(1, unbiased=False) if rows.shape[1] > 1 else rows.abs().mean(1)
        spread = spread.clamp_min(float(spread.mean()) * 0.1 + 1e-6)
        mean.copy_(rows.mean(1) + 0.3 * spread * torch.randn_like(spread))
        variance.copy_((spread * torch.empty_like(spread).uniform_(0.8, 1.25)) ** 2)

    hooks = [
        module.register_forward_pre_hook(settle)
        for module in model.modules()
        if isinstance(getattr(module, "running_mean", None), Tensor)
    ]
    try:
        model(*args)
    finally:
        for hook in hooks:
            hook.remove()
