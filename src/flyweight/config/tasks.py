"""What can be chosen about a task; light, so that a wrong config is refused at once."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Weight = Annotated[float, Field(ge=0)]
MetricName = Literal["voc_11point", "voc_area", "voc_integral", "coco", "wider"]
TestName = Literal["input", "native", "multi_scale"]


class Suppression(BaseModel):
    """Which boxes survive, class by class.

    Attributes:
        score_threshold: Lowest score that counts.
        iou_threshold: A box that overlaps a better one of its class more than this goes.
        top_k: Best boxes of each class that enter.
        keep: Best boxes of an image, all classes together, that leave.
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
    """What can be chosen about detection; the defaults are the original detector's.

    Attributes:
        metric: A key of `detect.METRICS`.
        label_smoothing: Of YOLO, see `yolo_loss.YoloLossSettings`.
        ignore_threshold: Of YOLO, see `yolo_loss.YoloLossSettings`.
        match_threshold: Of SSD and BlazeFace, see `ssd_loss.SsdLossSettings`.
        negatives: Of SSD and BlazeFace, see `ssd_loss.SsdLossSettings`.
        suppression: Which boxes survive.
        test: How `eval` looks at an image: "input" resizes it to the network's input as in
            training, "native" leaves it as it is, "multi_scale" looks at several sizes and mirrored
            and puts the boxes to the vote, see `tasks.multi_scale`. The last two are for networks
            that take images of any size.
        drop_singletons: "multi_scale": forget boxes that only one look found, as the originals did.
        ground_truth: "wider": folder of the published ground truth. A config says it as
            `data.ground_truth`; it does not go into checkpoints.
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
    """What can be chosen about classification.

    Attributes:
        label_smoothing: Share of the target that goes to all classes alike.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    label_smoothing: float = Field(default=0.0, ge=0, lt=1)


class SegmentConfig(BaseModel):
    """What can be chosen about segmentation.

    Attributes:
        dice: Weight of Dice's loss beside the cross entropy; 0 leaves it out.
        class_weights: Weight of each class in the cross entropy; None is 1 for all.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dice: float = Field(default=0.0, ge=0)
    class_weights: tuple[Weight, ...] | None = None


class TaskConfig(BaseModel):
    """What can be chosen about every task; a model uses the section of its own.

    Attributes:
        detect: Loss, decoding and metric of a detector.
        classify: Loss of a classifier.
        segment: Loss of a segmenter.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    detect: DetectConfig = DetectConfig()
    classify: ClassifyConfig = ClassifyConfig()
    segment: SegmentConfig = SegmentConfig()
