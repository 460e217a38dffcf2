"""Settings of tasks; light, so that a wrong config is refused at once."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Weight = Annotated[float, Field(ge=0)]
MetricName = Literal["voc_11point", "voc_area", "voc_integral", "coco", "wider"]
TestName = Literal["input", "native", "multi_scale"]


class Suppression(BaseModel):
    """Non-maximum suppression, class by class.

    Attributes:
        score_threshold: Boxes with a lower score are dropped.
        iou_threshold: A box is dropped if its overlap with a better box of its class is larger.
        top_k: Number of best boxes of each class that the suppression considers.
        keep: Number of best boxes of an image, over all classes, that are returned.
        plus_one: Count a box's last pixel as inside when overlaps are computed, as the original
            detector did. By default coordinates are continuous, as in torchvision and ONNX; the
            two differ noticeably for boxes of a few pixels only.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    score_threshold: float = Field(default=0.01, ge=0, le=1)
    iou_threshold: float = Field(default=0.45, gt=0, le=1)
    top_k: int = Field(default=1000, gt=0)
    keep: int = Field(default=100, gt=0)
    plus_one: bool = False


class DetectConfig(BaseModel):
    """Settings of detection; the defaults are the original detector's.

    Attributes:
        metric: A key of `tasks.detect.METRICS`.
        label_smoothing: For YOLO, see `tasks.losses.yolo.YoloLossSettings`.
        ignore_threshold: For YOLO, see `tasks.losses.yolo.YoloLossSettings`.
        match_threshold: For SSD and BlazeFace, see `tasks.losses.ssd.SsdLossSettings`.
        negatives: For SSD and BlazeFace, see `tasks.losses.ssd.SsdLossSettings`.
        suppression: Non-maximum suppression of boxes.
        test: Size of images in `eval`: "input" resizes them to the network's input as in training,
            "native" keeps their size, "multi_scale" detects at several sizes and mirrored and lets
            the boxes vote, see `tasks.decoding.multi_scale`. The last two need a network that takes
            images of any size.
        drop_singletons: "multi_scale": drop boxes that only one pass found, as the originals did.
        ground_truth: "wider": folder of the published ground truth. Configs have it as
            `data.ground_truth`; checkpoints do not contain it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    metric: MetricName = "voc_11point"
    label_smoothing: bool = False
    ignore_threshold: float = Field(default=0.7, gt=0, le=1)
    match_threshold: float = Field(default=0.5, gt=0, le=1)
    negatives: float = Field(default=3.0, ge=0)
    suppression: Suppression = Suppression()
    test: TestName = "input"
    drop_singletons: bool = False
    ground_truth: str | None = Field(default=None, exclude=True)


class ClassifyConfig(BaseModel):
    """Settings of classification.

    Attributes:
        label_smoothing: Share of the target that is spread evenly over all classes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    label_smoothing: float = Field(default=0.0, ge=0, lt=1)


class SegmentConfig(BaseModel):
    """Settings of segmentation.

    Attributes:
        dice: Weight of the Dice loss that is added to the cross entropy; 0 leaves it out.
        class_weights: Weight of each class in the cross entropy; None is 1 for all.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dice: float = Field(default=0.0, ge=0)
    class_weights: tuple[Weight, ...] | None = None


class TaskConfig(BaseModel):
    """Settings of all tasks; a model uses those of its own task.

    Attributes:
        detect: Loss, decoding and metric of a detector.
        classify: Loss of a classifier.
        segment: Loss of a segmenter.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    detect: DetectConfig = DetectConfig()
    classify: ClassifyConfig = ClassifyConfig()
    segment: SegmentConfig = SegmentConfig()
