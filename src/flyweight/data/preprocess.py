"""From a picture on disk to the network's input, the same in training, evaluation and export."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Triple = tuple[float, float, float]


class Preprocessing(BaseModel):
    """How a picture becomes the network's input; it travels with the weights and the export.

    The picture is decoded to RGB, turned upright by its EXIF tag, resized to `height` x `width`
    without keeping its aspect ratio, divided by 255, then `(x - mean) / std` per channel.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    height: int = Field(gt=0)
    width: int = Field(gt=0)
    mean: Triple = (0.485, 0.456, 0.406)
    std: Triple = (0.229, 0.224, 0.225)
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bicubic"
