"""Two-stage detectors of the zoo: Faster and Mask R-CNN on ResNet-50, Cascade R-CNN for phones.

All numbers, and the names `freeze_norm` and `freeze_at`, are those of the originals. Batch norms
with constant statistics and factors, and constant weights of the stages up to `freeze_at`, are
right for pretrained backbones. With fresh weights, train with `freeze_norm=False, freeze_at=0`.
"""

from dataclasses import replace

from torch import nn

from flyweight.errors import ConfigError
from flyweight.zoo.arguments import require_factor, require_num_classes
from flyweight.zoo.backbones.blocks import freeze_norms, scaled
from flyweight.zoo.backbones.mobilenet_v3 import FPN_TAPS, MobileNetV3
from flyweight.zoo.backbones.pyramid import FeaturePyramid
from flyweight.zoo.backbones.resnet import ResNet, initialise, make_stage
from flyweight.zoo.detectors.region_proposals import AnchorLevel, ProposalLimits, RegionProposalHead
from flyweight.zoo.detectors.roi_heads import MaskHead, RoiHead, TwoLayerBody
from flyweight.zoo.detectors.roi_pooling import PyramidRoiPool, RoiPool
from flyweight.zoo.detectors.two_stage import TwoStageDetector
from flyweight.zoo.detectors.two_stage_outputs import HeadStage, MaskLimits, TwoStageGeometry
from flyweight.zoo.spec import ModelSpec

POOLED = {"c4": 14, "pyramid": 7}
"""Rows and columns of a pooled region."""

MASK_CHANNELS = 256
PYRAMID_CHANNELS = 48
PYRAMID_LEVELS = (2, 3, 4, 5, 6)
HEAD_CHANNELS = 128

FASTER_GEOMETRY = TwoStageGeometry(
    levels=(AnchorLevel(16, (32.0, 64.0, 128.0, 256.0, 512.0)),),
    stages=(HeadStage(0.5, (10.0, 10.0, 5.0, 5.0)),),
    training=ProposalLimits(12000, 2000),
    testing=ProposalLimits(6000, 1000),
    class_specific=True,
)

MASK_GEOMETRY = replace(FASTER_GEOMETRY, masks=MaskLimits())


def _cascade_geometry(smallest: float) -> TwoStageGeometry:
    """Return the geometry of a cascade whose smallest anchors have sides of `smallest` pixels."""
    sizes = (smallest * 2**place for place in range(len(PYRAMID_LEVELS)))
    return TwoStageGeometry(
        levels=tuple(
            AnchorLevel(2**level, (size,))
            for level, size in zip(PYRAMID_LEVELS, sizes, strict=True)
        ),
        stages=(
            HeadStage(0.5, (10.0, 10.0, 5.0, 5.0)),
            HeadStage(0.6, (20.0, 20.0, 10.0, 10.0), share=0.5),
            HeadStage(0.7, (30.0, 30.0, 15.0, 15.0), share=0.25),
        ),
        training=ProposalLimits(2000, 2000),
        testing=ProposalLimits(300, 100),
        balanced=True,
    )


CASCADE_320_GEOMETRY = _cascade_geometry(16.0)
CASCADE_640_GEOMETRY = _cascade_geometry(24.0)


def faster_rcnn_r50(
    *,
    num_classes: int = 80,
    width: float = 1.0,
    proposals: int = 1000,
    samples: int = 512,
    freeze_norm: bool = True,
    freeze_at: int = 2,
) -> TwoStageDetector:
    """Build Faster R-CNN (arXiv 1506.01497) on ResNet-50, with stage 5 as its head.

    Args:
        num_classes: Number of classes without background.
        width: Multiplies the channels of all layers.
        proposals: Regions per image in evaluation.
        samples: Regions per image in training.
        freeze_norm: Keep statistics and factors of batch norms constant.
        freeze_at: Keep the weights of the stages up to this number constant.
    """
    return _c4(
        FASTER_GEOMETRY,
        num_classes=num_classes,
        width=width,
        counts=(proposals, samples),
        freeze_norm=freeze_norm,
        freeze_at=freeze_at,
    )


def mask_rcnn_r50(
    *,
    num_classes: int = 80,
    width: float = 1.0,
    proposals: int = 1000,
    samples: int = 512,
    freeze_norm: bool = True,
    freeze_at: int = 2,
) -> TwoStageDetector:
    """Build Mask R-CNN (arXiv 1703.06870) on ResNet-50; see `faster_rcnn_r50`."""
    return _c4(
        MASK_GEOMETRY,
        num_classes=num_classes,
        width=width,
        counts=(proposals, samples),
        freeze_norm=freeze_norm,
        freeze_at=freeze_at,
    )


def cascade_rcnn_mobilenet_v3_320(
    *,
    num_classes: int = 80,
    width: float = 1.0,
    proposals: int = 100,
    samples: int = 512,
    freeze_norm: bool = True,
) -> TwoStageDetector:
    """Build Cascade R-CNN (arXiv 1712.00726) on MobileNetV3-large for images of 320 pixels.

    Args:
        num_classes: Number of classes without background.
        width: Multiplies the channels of all layers.
        proposals: Regions per image in evaluation.
        samples: Regions per image in training.
        freeze_norm: Keep statistics and factors of batch norms constant.
    """
    pool = PyramidRoiPool(POOLED["pyramid"], (2, 3, 4), canonical_level=3, canonical_side=112)
    return _cascade(
        CASCADE_320_GEOMETRY, pool, num_classes, width, (proposals, samples), freeze_norm
    )


def cascade_rcnn_mobilenet_v3_640(
    *,
    num_classes: int = 80,
    width: float = 1.0,
    proposals: int = 100,
    samples: int = 512,
    freeze_norm: bool = True,
) -> TwoStageDetector:
    """Build Cascade R-CNN for images of 640 pixels; see `cascade_rcnn_mobilenet_v3_320`."""
    pool = PyramidRoiPool(POOLED["pyramid"], (2, 3, 4, 5), canonical_level=4, canonical_side=224)
    return _cascade(
        CASCADE_640_GEOMETRY, pool, num_classes, width, (proposals, samples), freeze_norm
    )


def _c4(
    geometry: TwoStageGeometry,
    *,
    num_classes: int,
    width: float,
    counts: tuple[int, int],
    freeze_norm: bool,
    freeze_at: int,
) -> TwoStageDetector:
    """Return a detector on stage 4 of ResNet-50, with stage 5 as the body of its head."""
    _require(num_classes, width)
    backbone = ResNet(50, "b", width=width, taps=(4,))
    in_channels = backbone.channels[-1]
    blocks = make_stage(5, in_channels, depth=50, variant="b", width=width)
    channels = next(reversed(blocks.values())).out_channels
    body = nn.Sequential(blocks)  # type: ignore[arg-type]
    initialise(body)
    masks = geometry.masks is not None
    mask_channels = scaled(MASK_CHANNELS, width)
    detector = TwoStageDetector(
        backbone=backbone,
        neck=None,
        rpn=RegionProposalHead(in_channels, in_channels, geometry.levels),
        pool=RoiPool(POOLED["c4"], geometry.levels[0].stride),
        heads=[RoiHead(body, channels, num_classes, class_specific=True)],
        mask_head=MaskHead(channels, mask_channels, num_classes) if masks else None,
        geometry=_with_counts(geometry, *counts),
    )
    _freeze_stages(backbone, freeze_at)
    if freeze_norm:
        freeze_norms(detector)
    return detector


def _cascade(
    geometry: TwoStageGeometry,
    pool: PyramidRoiPool,
    num_classes: int,
    width: float,
    counts: tuple[int, int],
    freeze_norm: bool,
) -> TwoStageDetector:
    _require(num_classes, width)
    backbone = MobileNetV3("large", width=width, taps=FPN_TAPS)
    channels, hidden = scaled(PYRAMID_CHANNELS, width), scaled(HEAD_CHANNELS, width)
    first, last = PYRAMID_LEVELS[0], PYRAMID_LEVELS[-1]
    heads = [
        RoiHead(
            TwoLayerBody(channels * pool.side**2, hidden),
            hidden,
            num_classes,
            class_specific=False,
        )
        for _ in geometry.stages
    ]
    detector = TwoStageDetector(
        backbone=backbone,
        neck=FeaturePyramid(backbone.channels, channels, first_level=first, last_level=last),
        rpn=RegionProposalHead(channels, channels, geometry.levels),
        pool=pool,
        heads=heads,
        mask_head=None,
        geometry=_with_counts(geometry, *counts),
    )
    if freeze_norm:
        freeze_norms(detector)
    return detector


def _require(num_classes: int, width: float) -> None:
    require_num_classes(num_classes)
    require_factor("width", width)


def _with_counts(geometry: TwoStageGeometry, proposals: int, samples: int) -> TwoStageGeometry:
    limits, sampled = geometry.testing, geometry.sampled
    _require_count("proposals", proposals, limits.after)
    _require_count("samples", samples, sampled.count)
    return replace(
        geometry,
        testing=limits._replace(after=proposals),
        sampled=replace(sampled, count=samples),
    )


def _require_count(name: str, value: int, original: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(
            f"{name} must be a whole number of at least 1. Received: {value!r}. "
            f"The original used {original}."
        )


def _freeze_stages(backbone: ResNet, last: int) -> None:
    """Keep the weights of the stem (stage 1) and of the stages up to `last` constant."""
    if last >= 1:
        backbone.stem.requires_grad_(False)
    for number, names in backbone.stages.items():
        for name in names if number <= last else ():
            backbone.get_submodule(name).requires_grad_(False)


ROWS = (
    ModelSpec(
        name="faster_rcnn_r50",
        task="detect",
        build=faster_rcnn_r50,
        geometry=FASTER_GEOMETRY,
        summary="Faster R-CNN detector on ResNet-50 C4; 33.9 M parameters, 920 GMACs at 800 x 1344",
    ),
    ModelSpec(
        name="mask_rcnn_r50",
        task="detect",
        build=mask_rcnn_r50,
        geometry=MASK_GEOMETRY,
        summary="Mask R-CNN detector on ResNet-50 C4; 36.0 M parameters, 1012 GMACs at 800 x 1344",
    ),
    ModelSpec(
        name="cascade_rcnn_mobilenet_v3_320",
        task="detect",
        build=cascade_rcnn_mobilenet_v3_320,
        geometry=CASCADE_320_GEOMETRY,
        summary="Cascade R-CNN detector on MobileNetV3; 2.3 M parameters, 0.95 GMACs at 320 x 320",
    ),
    ModelSpec(
        name="cascade_rcnn_mobilenet_v3_640",
        task="detect",
        build=cascade_rcnn_mobilenet_v3_640,
        geometry=CASCADE_640_GEOMETRY,
        summary="Cascade R-CNN detector on MobileNetV3-large; 2.3 M parameters, "
        "3.3 GMACs at 640 x 640",
    ),
)
