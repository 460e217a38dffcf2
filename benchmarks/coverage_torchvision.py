"""Networks of torchvision beyond its plain classifiers, segmenters and detectors.

Video, optical flow, auxiliary heads, the quantizable variants in floating point, detectors with
other backbones, extracted features and other normalisations.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, cast

import torch
import torchvision
from coverage_case import Case, Inputs
from coverage_models import DETECTOR_HEADS, detector_options, detector_targets
from torch import nn
from torchvision.models import detection, feature_extraction
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN, resnet_fpn_backbone
from torchvision.models.video import mvit

_SUITE = "torchvision-other"
_SIDE = 128
_get = torchvision.models.get_model


def cases() -> Iterator[Case]:
    """Yield the networks of the suite."""
    yield from _video()
    yield from _flow()
    yield from _auxiliary()
    yield from _quantizable()
    yield from _detectors()
    yield from _features()
    yield from _normalisations()


def _video() -> Iterator[Case]:
    for name in ("mc3_18", "r2plus1d_18", "r3d_18"):
        build = partial(_get, name, weights=None)
        yield Case(_SUITE, name, build, (1, 3, 4, 48, 48), classes=400)
    yield Case(_SUITE, "s3d", _small_s3d, (1, 3, 16, 64, 64), classes=400)
    for version in (1, 2):
        build = partial(_mvit, version)
        yield Case(_SUITE, f"mvit_v{version}_small", build, (1, 3, 8, 64, 64), classes=400)
    for name in ("swin3d_t", "swin3d_s"):
        build = partial(_get, name, weights=None)
        yield Case(_SUITE, name, build, (1, 3, 4, 64, 64), classes=400)


def _small_s3d() -> nn.Module:
    """Build S3D for clips of 64 x 64; the last pool of its own takes 224 x 224."""
    model: nn.Module = _get("s3d", weights=None)
    model.avgpool = nn.AvgPool3d(2, stride=1)
    return model


def _mvit(version: int) -> nn.Module:
    """Build a network of the family with four blocks, for clips of 8 frames of 64 x 64."""
    later = version == 2
    q_strides = ([1, 1, 1], [1, 2, 2], [1, 1, 1], [1, 2, 2])
    kv_strides = ([1, 4, 4], [1, 2, 2], [1, 2, 2], [1, 1, 1])
    widths = (
        ((48, 48), (48, 96), (96, 96), (96, 192))
        if later
        else ((48, 96), (96, 96), (96, 192), (192, 192))
    )
    blocks = [
        mvit.MSBlockConfig(heads, *width, [3, 3, 3], [3, 3, 3], q_stride, kv_stride)
        for heads, width, q_stride, kv_stride in zip(
            (1, 2, 2, 4), widths, q_strides, kv_strides, strict=True
        )
    ]
    return mvit.MViT(
        (64, 64),
        8,
        blocks,
        residual_pool=later,
        residual_with_cls_embed=not later,
        rel_pos_embed=later,
        proj_after_attn=later,
    )


def _flow() -> Iterator[Case]:
    def pair(batch: int, side: int) -> Inputs:
        images = (torch.rand(batch, 3, side, side) * 2 - 1 for _ in range(2))
        return tuple(images), {"num_flow_updates": 2}

    for name in ("raft_small", "raft_large"):
        build = partial(_get, name, weights=None)
        yield Case(_SUITE, name, build, (1, 3, 128, 128), inputs=pair)


def _auxiliary() -> Iterator[Case]:
    for name, side in (("googlenet", 96), ("inception_v3", 299)):
        build = partial(_get, name, weights=None, init_weights=False, aux_logits=True)
        yield Case(_SUITE, f"{name}+aux", build, (1, 3, side, side))
    for name in ("fcn_resnet50", "deeplabv3_resnet50", "deeplabv3_mobilenet_v3_large"):
        build = partial(_get, name, weights=None, weights_backbone=None, aux_loss=True)
        yield Case(_SUITE, f"{name}+aux", build, (1, 3, 96, 96), classes=21)


def _quantizable() -> Iterator[Case]:
    names = torchvision.models.list_models(module=torchvision.models.quantization)
    for name in names:
        if name.endswith(("101_32x8d", "101_64x4d", "v2_x1_5")):
            continue  # the same code at other widths
        aux = name.endswith(("googlenet", "inception_v3"))
        options: dict[str, Any] = {"init_weights": False, "aux_logits": False} if aux else {}
        build = partial(_get, name, weights=None, quantize=False, **options)
        yield Case(_SUITE, name, build, (1, 3, 96, 96))


def _detectors() -> Iterator[Case]:
    builders = {
        "fasterrcnn_resnet18_fpn": partial(_of_pyramid, detection.FasterRCNN, "resnet18"),
        "fasterrcnn_resnext50_fpn": partial(_of_pyramid, detection.FasterRCNN, "resnext50_32x4d"),
        "maskrcnn_resnet18_fpn": partial(_of_pyramid, detection.MaskRCNN, "resnet18"),
        "keypointrcnn_resnet18_fpn": partial(_of_pyramid, detection.KeypointRCNN, "resnet18", 2),
        "retinanet_resnet34_fpn": partial(_of_pyramid, detection.RetinaNet, "resnet34"),
        "fcos_resnet34_fpn": partial(_of_pyramid, detection.FCOS, "resnet34"),
        "fasterrcnn_mobilenet_v2": partial(_of_features, "mobilenet_v2"),
        "fasterrcnn_efficientnet_b0": partial(_of_features, "efficientnet_b0"),
        "fasterrcnn_squeezenet": partial(_of_features, "squeezenet1_1"),
        "fasterrcnn_convnext_fpn": _convnext_detector,
        "ssd_resnet18": _ssd,
    }
    for name, build in builders.items():
        targets = partial(detector_targets, name)
        yield Case(_SUITE, name, build, (3, _SIDE, _SIDE), DETECTOR_HEADS, targets=targets)


def _options(name: str) -> dict[str, Any]:
    options = detector_options(name)
    return options | {"min_size": _SIDE, "max_size": 2 * _SIDE}


def _of_pyramid(make: Any, body: str, classes: int = 21) -> nn.Module:
    backbone = resnet_fpn_backbone(backbone_name=body, weights=None, trainable_layers=5)
    options = _options("rcnn" if "RCNN" in make.__name__ else "one stage")
    if "RCNN" not in make.__name__:
        sizes = tuple((2**level,) for level in range(4, 9))
        ratios = ((0.5, 1.0, 2.0) if make is detection.RetinaNet else (1.0,),) * 5
        options["anchor_generator"] = AnchorGenerator(sizes, ratios)
    return cast(nn.Module, make(backbone, classes, **options))


def _of_features(name: str) -> nn.Module:
    backbone = _get(name, weights=None).features
    with torch.no_grad():
        backbone.out_channels = backbone(torch.zeros(2, 3, 64, 64)).shape[1]
    anchors = AnchorGenerator(((16, 32, 64),), ((0.5, 1.0, 2.0),))
    pooler = torchvision.ops.MultiScaleRoIAlign(["0"], 7, 2)
    options = {"rpn_anchor_generator": anchors, "box_roi_pool": pooler, **_options("rcnn")}
    return cast(nn.Module, detection.FasterRCNN(backbone, 21, **options))


def _convnext_detector() -> nn.Module:
    body = torchvision.models.convnext_tiny(weights=None).features
    levels = {"1": "0", "3": "1", "5": "2", "7": "3"}
    backbone = BackboneWithFPN(body, levels, [96, 192, 384, 768], 64)
    return cast(nn.Module, detection.FasterRCNN(backbone, 21, **_options("rcnn")))


def _ssd() -> nn.Module:
    body = torchvision.models.resnet18(weights=None)
    levels = {"layer2": "0", "layer3": "1", "layer4": "2"}
    backbone = torchvision.models._utils.IntermediateLayerGetter(body, levels)
    boxes = DefaultBoxGenerator([[2], [2, 3], [2]], scales=[0.1, 0.3, 0.6, 0.9])
    head = detection.ssd.SSDHead([128, 256, 512], boxes.num_anchors_per_location(), 21)
    options = detector_options("ssd")
    return cast(
        nn.Module, detection.ssd.SSD(backbone, boxes, (_SIDE, _SIDE), 21, head=head, **options)
    )


def _features() -> Iterator[Case]:
    chosen = {
        "resnet18": ["layer2", "layer4"],
        "efficientnet_b0": ["features.3", "features.8"],
        "regnet_y_400mf": ["trunk_output.block2", "trunk_output.block4"],
        "densenet121": ["features.denseblock2", "features.norm5"],
    }
    for name, nodes in chosen.items():
        yield Case(_SUITE, f"{name}+features", partial(_extractor, name, nodes), (1, 3, 96, 96))


def _extractor(name: str, nodes: list[str]) -> nn.Module:
    model = _get(name, weights=None)
    return cast(nn.Module, feature_extraction.create_feature_extractor(model, nodes))


def _normalisations() -> Iterator[Case]:
    layers = {
        "groupnorm": partial(nn.GroupNorm, 8),
        "instancenorm": partial(nn.InstanceNorm2d, affine=True),
        "syncbn": nn.SyncBatchNorm,
        "frozenbn": torchvision.ops.FrozenBatchNorm2d,
    }
    for name, layer in layers.items():
        for body in ("resnet50", "mobilenet_v2") if name == "groupnorm" else ("resnet18",):
            build = partial(_get, body, weights=None, norm_layer=layer)
            yield Case(_SUITE, f"{body}+{name}", build, (1, 3, 96, 96))
    dilated = partial(_get, "resnet50", weights=None, replace_stride_with_dilation=[0, 1, 1])
    yield Case(_SUITE, "resnet50+dilated", dilated, (1, 3, 96, 96))
    fewer = partial(_get, "convnext_tiny", weights=None, num_classes=7)
    yield Case(_SUITE, "convnext_tiny+7 classes", fewer, (1, 3, 96, 96), classes=7)
