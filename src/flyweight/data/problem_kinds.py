"""Kinds of problems of a data set: one table of what each means and how it is solved."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

KindName = Literal[
    "unreadable_split",
    "num_classes",
    "different_classes",
    "no_images",
    "no_objects",
    "one_class",
    "masks_of_0_and_255",
    "missing_image",
    "undecodable_image",
    "unsupported_pixels",
    "image_size",
    "exchanged_sides",
    "repeated_image",
    "shared_image",
    "invalid_annotation",
    "keypoint_rows",
    "run_lengths",
    "infinite_box",
    "exchanged_corners",
    "empty_box",
    "box_outside",
    "repeated_box",
    "missing_label_image",
    "undecodable_labels",
    "label_size",
    "unknown_label",
    "copied_image",
    "unused_class",
    "mixed_masks",
    "missing_label_file",
    "label_file_without_image",
]


class Kind(NamedTuple):
    """One row of the table of kinds.

    Attributes:
        stops: Whether training would be wrong, so that it does not start.
        meaning: What is wrong, as a noun with its clause.
        remedy: What to do.
    """

    stops: bool
    meaning: str
    remedy: str


_RESTORE = "Restore the file, or take the image out of the list."
_BOXES = "Correct the boxes, or leave them out: -o data.problems=leave_out"

KINDS: Mapping[KindName, Kind] = {
    "unreadable_split": Kind(
        True,
        "a split whose list, annotations or class names cannot be read",
        "Correct the path or the file that the example names.",
    ),
    "num_classes": Kind(
        True,
        "a number of classes in the config that is not the data's",
        "Set num_classes to the number of the data's classes.",
    ),
    "different_classes": Kind(
        True,
        "training and validation with different classes",
        "Give data.labels, which holds for both splits.",
    ),
    "no_images": Kind(
        True,
        "a split without a usable image",
        "Check data.train and data.val, and the list that they name.",
    ),
    "no_objects": Kind(
        True,
        "a whole split without an object, or without a labelled pixel",
        "Check where annotations are searched and which class names they have.",
    ),
    "one_class": Kind(
        True,
        "a training split in which only one of several classes occurs",
        "Check the labels of the training split: nothing can be distinguished.",
    ),
    "masks_of_0_and_255": Kind(
        True,
        "label images of 0 and 255 alone, where 255 means 'does not count'",
        "Give the meaning of the values: -o 'data.values={0: 0, 255: 1}'",
    ),
    "missing_image": Kind(
        True, "an image that an annotation or a list names and that does not exist", _RESTORE
    ),
    "undecodable_image": Kind(
        True, "an image file that is damaged, truncated or no image", _RESTORE
    ),
    "unsupported_pixels": Kind(
        True,
        "an image of float or 32-bit pixels, whose range is unknown",
        "Save the images with 8 or 16 bits per channel.",
    ),
    "image_size": Kind(
        True,
        "an annotation with another size than that of its image",
        "Correct the size and the boxes, which were made on another version of the image.",
    ),
    "exchanged_sides": Kind(
        True,
        "an annotation with width and height of its image exchanged",
        "Exchange width and height in the annotation, and x and y of its boxes where they are "
        "exchanged, too.",
    ),
    "repeated_image": Kind(
        True, "an image that is listed twice in one split", "Remove one of the two lines."
    ),
    "shared_image": Kind(
        True,
        "an image file that is in training and in validation",
        "Take it out of one list; metrics of known images are too good.",
    ),
    "invalid_annotation": Kind(
        True,
        "an entry of an annotation file that cannot be used",
        "Correct the entry, or leave it out: -o data.problems=leave_out",
    ),
    "keypoint_rows": Kind(
        True,
        "rows of keypoints in a YOLO set whose data.yaml has no kpt_shape",
        "Add kpt_shape to data.yaml, for example kpt_shape: [17, 3].",
    ),
    "run_lengths": Kind(
        True,
        "run lengths of a mask that do not decode to the size of their image",
        "Write the masks again, with the counts as text and the size as [height, width].",
    ),
    "infinite_box": Kind(True, "a box with a corner that is no finite number", _BOXES),
    "exchanged_corners": Kind(
        True,
        "a box whose right side is left of its left side, or whose bottom is above its top",
        "Exchange the two corners: the first is the upper left, the second the lower right.",
    ),
    "empty_box": Kind(True, "a box without width or height", _BOXES),
    "box_outside": Kind(True, "a box that exceeds its image", _BOXES),
    "repeated_box": Kind(True, "a box that is given twice", _BOXES),
    "missing_label_image": Kind(
        True,
        "an image without label image, or a label image without image",
        "Add the missing file, or remove the other one.",
    ),
    "undecodable_labels": Kind(
        True,
        "a label image that is damaged, or has colours instead of class indices",
        "Save class indices as a greyscale or palette PNG.",
    ),
    "label_size": Kind(
        True,
        "a label image of another size than its image",
        "Save the labels at the upright size of the image.",
    ),
    "unknown_label": Kind(
        True,
        "a pixel value that stands for no class",
        "Correct the label images, or give the meaning of their values in data.values.",
    ),
    "copied_image": Kind(
        False,
        "an image that is in training and in validation under two paths",
        "Remove one of the copies; metrics of known images are too good.",
    ),
    "unused_class": Kind(
        False,
        "a class that does not occur in a split",
        "Add examples, or remove the class from the labels; check the spelling of its name.",
    ),
    "mixed_masks": Kind(
        False,
        "a label image of 0 and 255 among others that have classes and never 255",
        "Write all label images in one way: class indices, and 255 where no class counts.",
    ),
    "missing_label_file": Kind(
        False,
        "an image without label file, which counts as an image without objects",
        "Add the label file; where the image has no objects, an empty one.",
    ),
    "label_file_without_image": Kind(
        False,
        "a label file whose image does not exist",
        "Add the image, or remove the label file.",
    ),
}
"""Every kind of problem by its name, those that stop training first."""
