"""Preprocessing of images into the network's input, equal in training, evaluation and export."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Triple = tuple[float, float, float]

MOST_SIDE = 2**14
"""Pixels of a side of an input: a file that asks for more does not get the memory for it."""


class Appearance(BaseModel):
    """Preprocessing apart from the size of the input.

    Attributes:
        mean: Subtracted from the channels.
        std: Divides the channels after `mean` was subtracted.
        interpolation: Method of resizing.
        antialias: Smooth before shrinking, as Pillow does and as the weights of timm and
            torchvision expect; False resizes like `cv2.resize`, as the originals did.
        fit: "stretch" resizes to the input without keeping the aspect ratio; "pad" keeps it, puts
            the image into the upper left corner and fills the rest with `mean`, zero after
            normalisation; "crop" resizes the short side to the input's over `crop_share` and cuts
            out the centre.
        crop_share: "crop": share of the short side that the crop contains, as timm's `crop_pct`.
        value_range: 1 divides pixels by 255 before `mean` and `std` apply; 255 does not.
        channels: Order of the colours in the network's input; `mean` and `std` have the same order.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    mean: Triple = (0.485, 0.456, 0.406)
    std: Triple = (0.229, 0.224, 0.225)
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bicubic"
    antialias: bool = False
    fit: Literal["stretch", "pad", "crop"] = "stretch"
    crop_share: float = Field(default=0.875, ge=0.01, le=1)
    value_range: Literal[1, 255] = 1
    channels: Literal["rgb", "bgr"] = "rgb"


class Preprocessing(Appearance):
    """How an image becomes the network's input; saved with checkpoints and exports.

    The image is decoded to RGB, turned upright by its EXIF tag, resized to `height` x `width`,
    divided by 255, then `(x - mean) / std` per channel.

    Attributes:
        height: Height of the input in pixels.
        width: Width of the input in pixels.
    """

    height: int = Field(gt=0, le=MOST_SIDE)
    width: int = Field(gt=0, le=MOST_SIDE)

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width that an image is resized to, before padding or cropping.

        Example:
            >>> Preprocessing(height=320, width=320, fit="pad").resized(480, 640)
            (240, 320)
        """
        if self.fit == "stretch":
            return self.height, self.width
        if self.fit == "pad":
            factor = min(self.height / height, self.width / width)
        else:
            factor = max(self.height / height, self.width / width) / self.crop_share
        return max(1, round(height * factor)), max(1, round(width * factor))

    def scale(self, height: int, width: int) -> tuple[float, float]:
        """Return the image pixels per input pixel, horizontally and vertically.

        Example:
            >>> Preprocessing(height=320, width=320).scale(480, 640)
            (2.0, 1.5)
        """
        down, across = self.resized(height, width)
        return width / across, height / down

    @property
    def mean_colour(self) -> tuple[int, int, int]:
        """`mean` as the nearest RGB colour in 0..255.

        Example:
            >>> Preprocessing(height=320, width=320).mean_colour
            (124, 116, 104)
        """
        whole = 255 // self.value_range
        first, second, third = (round(whole * channel) for channel in self.mean)
        return (third, second, first) if self.channels == "bgr" else (first, second, third)
