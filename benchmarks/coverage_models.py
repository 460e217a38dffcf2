"""The networks that the coverage benchmark runs on, suite by suite.

The suites of libraries that flyweight does not need are in files of their own, which are imported
when the suite is asked for. Where the library is missing, one case says so.
"""

import importlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import timm
import torch
import torchvision
from coverage_case import Case, Inputs
from coverage_case import randomise as randomise
from torch import nn
from torchvision.models import detection
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.ops import FrozenBatchNorm2d

from flyweight.zoo import create
from flyweight.zoo.specs import SPECS

TIMM_MODELS = Path(__file__).resolve().with_name("coverage_timm_models.txt")

_CONVOLUTIONAL_SIDE, _ATTENTION_SIDE, _DETECTION_SIDE = 96, 224, 160


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


DETECTOR_HEADS = (
    r"cls_logits$|bbox_pred$|cls_score$|bbox_reg$|bbox_ctrness$|mask_fcn_logits$"
    r"|kps_score_lowres$|(classification|regression)_head\.module_list\.\d+(\.1)?$"
)


def _detection() -> Iterator[Case]:
    case = partial(
        Case,
        "torchvision-detection",
        shape=(3, _DETECTION_SIDE, _DETECTION_SIDE),
        heads=DETECTOR_HEADS,
    )
    for name in torchvision.models.list_models(module=detection):
        options = {"weights": None, "weights_backbone": None, **detector_options(name)}
        build = partial(torchvision.models.get_model, name, **options)
        yield case(name, build, targets=partial(detector_targets, name))
    for name in ("fasterrcnn_resnet50_fpn", "retinanet_resnet50_fpn"):
        build = partial(_frozen_detector, name)
        yield case(f"{name}+frozenbn", build, targets=partial(detector_targets, name))


def detector_targets(name: str, batch: int, side: int) -> Inputs:
    """Return images and two objects in each for the training of a detector of torchvision."""
    images = [torch.randn(3, side, side) for _ in range(batch)]
    boxes = side * torch.tensor([[0.1, 0.1, 0.5, 0.6], [0.3, 0.4, 0.9, 0.8]])
    target = {"boxes": boxes, "labels": torch.tensor([1, 2 if "keypoint" not in name else 1])}
    if name.startswith("maskrcnn"):
        target["masks"] = (torch.rand(2, side, side) > 0.5).to(torch.uint8)
    if name.startswith("keypointrcnn"):
        points = boxes[:, None, :2] + torch.rand(2, 17, 2) * (
            boxes[:, None, 2:] - boxes[:, None, :2]
        )
        target["keypoints"] = torch.cat([points, torch.ones(2, 17, 1)], 2)
    return (images, [dict(target) for _ in images]), {}


def detector_options(name: str) -> dict[str, Any]:
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
        return cast(nn.Module, detection.FasterRCNN(backbone, 91, **detector_options(name)))
    pyramid = torchvision.ops.feature_pyramid_network.LastLevelP6P7(256, 256)
    backbone = _resnet_fpn_extractor(body, 5, returned_layers=[2, 3, 4], extra_blocks=pyramid)
    return cast(nn.Module, detection.RetinaNet(backbone, 91, **detector_options(name)))


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


def _of_file(suite: str, module: str) -> Iterator[Case]:
    """Yield the networks of a file; one that cannot be built where its library is missing."""
    try:
        yield from importlib.import_module(module).cases()
    except ImportError as error:
        yield Case(suite, "all", partial(_missing, error), (1, 3, 8, 8))


def _missing(error: ImportError) -> nn.Module:
    raise error


SUITES: dict[str, Callable[[], Iterator[Case]]] = {
    "torchvision-classification": _classification,
    "torchvision-segmentation": _segmentation,
    "torchvision-detection": _detection,
    "zoo": _zoo,
    "timm": _timm,
    **{
        suite: partial(_of_file, suite, module)
        for suite, module in {
            "torchvision-other": "coverage_torchvision",
            "transformers": "coverage_transformers",
            "segmentation_models": "coverage_segmentation",
            "monai": "coverage_monai",
            "pytorchcv": "coverage_pytorchcv",
            "idioms": "coverage_idioms",
        }.items()
    },
}
