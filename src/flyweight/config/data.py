"""Data sets to read, and the random variation of training images."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(gt=0)]
Factors = tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]]
Share = Annotated[float, Field(gt=0, le=1)]
Ratio = Annotated[float, Field(gt=0, le=10)]
Format = Literal[
    "voc",
    "coco",
    "wider",
    "yolo",
    "imagefolder",
    "class_list",
    "masks",
    "cityscapes",
    "digits",
    "digits_classes",
    "digits_maps",
]

FORMATS: Mapping[str, tuple[Format, ...]] = {
    "detect": ("voc", "coco", "wider", "yolo", "digits"),
    "classify": ("imagefolder", "class_list", "digits_classes"),
    "segment": ("masks", "cityscapes", "digits_maps"),
}
"""The formats of each task, by its name."""


class DataConfig(BaseModel):
    """A training and a validation split of one data set.

    Attributes:
        format: Layout of the set. With boxes: "voc", "coco", "wider" (WIDER FACE) and "yolo". With
            classes: "imagefolder", a folder per class, and "class_list", lines `image class`. With
            a class per pixel: "masks", label images by list or folder, and "cityscapes". Generated:
            "digits" (boxes), "digits_classes", "digits_maps".
        root: Folder of the set; the digits have none.
        train: VOC: a split name (`ImageSets/Main/<name>.txt`) or a list file of lines
            `image annotation`, relative to `root`. COCO: the annotation JSON, relative to `root`.
            WIDER: "train" or "val" for the published texts, or a text, relative to `root`. YOLO: a
            key of `data.yaml`, or a folder of images or a list of them, relative to `root`.
            Lists of classes and masks: the list file, relative to `root`. Folders: the split's
            name.
        val: The same for validation.
        labels: Class names in the order of their indices. None reads `label_list.txt` (VOC),
            `labels.txt` or `label_list.txt` (lists and masks), the categories in the order of their
            ids (COCO), `data.yaml` (YOLO) or the folders in the order of their names; WIDER has
            "face".
        use_difficult: Treat objects marked difficult as ordinary ones. Otherwise training ignores
            them, and evaluation neither rewards nor punishes their detection.
        values: Masks: pixel value in the label files to class index, 255 for ignored pixels, such
            as `{0: 0, 255: 1}`. None uses the values as indices.
        images: COCO: folder of the images, relative to `root`. None searches `train2017` for
            `instances_train2017.json`, then `images`, `JPEGImages` and `root`. WIDER: folder of the
            events; None searches `WIDER_train/images` and similar folders.
        masks: COCO: read every object's `segmentation`, for detectors that make masks.
        ground_truth: WIDER: folder of the four published evaluation files of the validation split,
            `wider_easy_val.mat` and so on, relative to `root`. None derives easy, medium and hard
            from the heights of faces.
        problems: Treatment of bad images and boxes: "refuse" to start, or "leave_out"; they are
            listed in both cases.
        size: Digits: side of an image in pixels.
        seed: Digits: seed of the generated set.
        train_count: Digits: number of training images.
        val_count: Digits: number of validation images, with other handwriting.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Format
    root: str = ""
    train: str = "train"
    val: str = "val"
    labels: tuple[str, ...] | None = None
    use_difficult: bool = False
    values: dict[int, int] | None = None
    images: str | None = None
    masks: bool = False
    ground_truth: str | None = None
    problems: Literal["refuse", "leave_out"] = "refuse"
    size: int = Field(default=160, ge=32, le=4096)
    seed: int = Field(default=0, ge=0)
    train_count: Positive = 800
    val_count: Positive = 200

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.made_up and not self.root:
            raise ValueError(f"root must name the folder of the {self.format} set")
        if self.labels is not None and not self.labels:
            raise ValueError("labels must name at least one class; leave it out to read them")
        if self.labels is not None and len(set(self.labels)) != len(self.labels):
            raise ValueError("labels must name every class once")
        if self.values is not None and not all(0 <= v < 2**16 for v in self.values):
            raise ValueError("values must be pixel values, 0..65535")
        if self.values is not None and not all(0 <= i <= 255 for i in self.values.values()):
            raise ValueError("values must be class indices, or 255 for ignored pixels")
        return self

    @property
    def made_up(self) -> bool:
        """Whether images are generated."""
        return self.format.startswith("digits")


class ClassAugment(BaseModel):
    """Random variation of training images for classification.

    Attributes:
        crop: "resized" crops a part of random size and shape and resizes it to the input
            (Szegedy et al. 2014, https://arxiv.org/abs/1409.4842); "none" resizes the whole image.
        crop_scale: Least and greatest share of the image's area in the crop.
        crop_ratio: Least and greatest width over height of the crop.
        flip: Mirror left to right with probability 0.5.
        color: Largest relative change of brightness, contrast and saturation; 0 disables it.
        rand_augment: Number and magnitude, 0..30, of the operations of RandAugment
            (Cubuk et al. 2019, https://arxiv.org/abs/1909.13719); None disables it.
        mixup_alpha: As in `AugmentConfig`, with the labels blended, too; None disables it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    crop: Literal["resized", "none"] = "resized"
    crop_scale: tuple[Share, Share] = (0.08, 1.0)
    crop_ratio: tuple[Ratio, Ratio] = (3 / 4, 4 / 3)
    flip: bool = True
    color: float = Field(default=0.0, ge=0, le=1)
    rand_augment: tuple[Positive, Annotated[int, Field(ge=0, le=30)]] | None = None
    mixup_alpha: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("crop_scale", "crop_ratio"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} must rise")
        return self


class MapAugment(BaseModel):
    """Random variation of training images for segmentation.

    Attributes:
        scale: Least and greatest random factor of the size that evaluation resizes images to.
        crop: Height and width of the crop that follows, after padding with the mean colour where
            the image is smaller; None takes the size of the input.
        flip: Mirror left to right with probability 0.5.
        color: Largest relative change of brightness, contrast and saturation; 0 disables it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    scale: tuple[Ratio, Ratio] = (0.5, 2.0)
    crop: tuple[Positive, Positive] | None = None
    flip: bool = True
    color: float = Field(default=0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.scale[0] > self.scale[1]:
            raise ValueError("scale must rise")
        return self


class AugmentConfig(BaseModel):
    """Random variation of training images. The defaults are those of the original YOLOv3 configs.

    Attributes:
        mixup_alpha: Two images are blended by a draw from beta(alpha, alpha)
            (Zhang et al. 2017, https://arxiv.org/abs/1710.09412); None disables mixup.
        mixup_epochs: Number of first epochs with mixup; None uses it in all.
        color_distort: Hue within 18 degrees; saturation, contrast and brightness 0.5 to 1.5; each
            with probability 0.5, in random order.
        hue_degrees: Largest rotation of the hue, in both directions.
        saturation: Least and greatest factor of the saturation.
        contrast: Least and greatest factor of the contrast.
        brightness: Least and greatest factor of the brightness.
        distort_in_order: Brightness first, then contrast, saturation and hue, or saturation, hue
            and contrast, as SSD's readers did.
        expand: With probability 0.5, place the image on a canvas of the mean colour, up to
            `expand_ratio` times its sides.
        expand_ratio: Largest ratio of the canvas to the image.
        crop: Crop a part that overlaps an object (SSD, https://arxiv.org/abs/1512.02325).
        allow_no_crop: "No crop" is one of the seven choices of `crop`.
        face_crop: In place of `crop`: resize a face to the size of an anchor, or crop a square
            with a whole face, see `data.samples.face_crop`.
        anchor_scales: `face_crop`: sides of the anchors in pixels, rising.
        flip: Mirror left to right with probability 0.5.
        multi_scale: Side lengths in pixels; each batch has one of them, at random. None trains at
            the size of the preprocessing.
        random_interpolation: Resize each batch by one of five methods at random; False uses the
            method of the preprocessing.
        max_boxes: Largest number of boxes of an image; the first ones are kept. None keeps all.
        classify: Variation for classification, in place of all settings above.
        segment: Variation for segmentation, in place of all settings above.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    mixup_alpha: float | None = Field(default=1.5, gt=0)
    mixup_epochs: int | None = Field(default=250, ge=0)
    color_distort: bool = True
    hue_degrees: float = Field(default=18.0, ge=0, le=180)
    saturation: Factors = (0.5, 1.5)
    contrast: Factors = (0.5, 1.5)
    brightness: Factors = (0.5, 1.5)
    distort_in_order: bool = False
    expand: bool = True
    expand_ratio: float = Field(default=4.0, ge=1)
    crop: bool = True
    allow_no_crop: bool = True
    face_crop: bool = False
    anchor_scales: tuple[float, ...] = Field(default=(16.0, 32.0, 64.0, 128.0), min_length=2)
    flip: bool = True
    multi_scale: tuple[Positive, ...] | None = Field(default=None, min_length=1)
    random_interpolation: bool = True
    max_boxes: Positive | None = 50
    classify: ClassAugment = ClassAugment()
    segment: MapAugment = MapAugment()

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("saturation", "contrast", "brightness"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} must rise")
        scales = self.anchor_scales
        if scales[0] <= 0 or any(low >= high for low, high in pairwise(scales)):
            raise ValueError("anchor_scales must rise from above 0")
        return self

    def repeats(self, task: str) -> bool:
        """Return whether an image is the same in every epoch of a task's training.

        Example:
            >>> AugmentConfig.off().repeats("detect"), AugmentConfig().repeats("detect")
            (True, False)
        """
        fixed = AugmentConfig.off()
        names: tuple[str, ...] = ("classify",)
        if task == "segment":
            names = ("segment",)
        elif task != "classify":
            names = ("mixup_alpha", "color_distort", "expand", "crop", "face_crop", "flip")
            names = (*names, "random_interpolation")
        same = all(getattr(self, name) == getattr(fixed, name) for name in names)
        return same and len(self.multi_scale or (0,)) == 1

    @classmethod
    def off(cls) -> "AugmentConfig":
        """Return the settings that only resize and normalise.

        Example:
            >>> AugmentConfig.off().flip
            False
        """
        return cls(
            mixup_alpha=None,
            color_distort=False,
            expand=False,
            crop=False,
            flip=False,
            random_interpolation=False,
            max_boxes=None,
            classify=ClassAugment(crop="none", flip=False),
            segment=MapAugment(scale=(1.0, 1.0), flip=False),
        )
