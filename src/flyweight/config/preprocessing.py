"""From an image on disk to the network's input, the same in training, evaluation and export."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Triple = tuple[float, float, float]


class Appearance(BaseModel):
    """How images of any size come to look, whatever the input's.

    Attributes:
        mean: Subtracted from the channels.
        std: Divides them then.
        interpolation: How images are resized.
        antialias: Smooth before shrinking, as Pillow does and as the weights of timm and
            torchvision are used to; else resize like `cv2.resize`, as the originals did.
        fit: "stretch" resizes to the input without keeping the aspect ratio; "pad" keeps it, puts
            the image into the upper left corner and fills the rest with `mean`, zero after
            normalisation; "crop" resizes the short side to the input's over `crop_share` and cuts
            out the centre.
        crop_share: "crop": the share of the short side that is seen, as timm's `crop_pct`.
        value_range: 1 divides pixels by 255 before `mean` and `std` apply, 255 leaves them.
        channels: The order in which the network takes colours; `mean` and `std` are in it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    mean: Triple = (0.485, 0.456, 0.406)
    std: Triple = (0.229, 0.224, 0.225)
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bicubic"
    antialias: bool = False
    fit: Literal["stretch", "pad", "crop"] = "stretch"
    crop_share: float = Field(default=0.875, gt=0, le=1)
    value_range: Literal[1, 255] = 1
    channels: Literal["rgb", "bgr"] = "rgb"


class Preprocessing(Appearance):
    """How an image becomes the network's input; it travels with the weights and the export.

    The image is decoded to RGB, turned upright by its EXIF tag, brought to `height` x `width`,
    divided by 255, then `(x - mean) / std` per channel.

    Attributes:
        height: Of the input, in pixels.
        width: Of the input, in pixels.
    """

    height: int = Field(gt=0)
    width: int = Field(gt=0)

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
        """Return how many of an image's pixels one of the input's stands for, across and down.

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
