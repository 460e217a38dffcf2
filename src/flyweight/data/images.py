"""Images: decoding, and conversion to the input of a network."""

import os
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transform

from flyweight.config.preprocessing import Preprocessing
from flyweight.data.records import ImageSet, Pixels
from flyweight.errors import DataError
from flyweight.untrusted.encoded_images import KNOWN_FORMATS, opened_image, require_pixels
from flyweight.untrusted.failures import reason_of, refusing
from flyweight.untrusted.file_bytes import MOST_IMAGE_BYTES, open_file, read_bytes

# Pillow's decoders raise errors of any class for damaged files.
DECODER_ERRORS: tuple[type[Exception], ...] = (Exception,)
_ORIENTATION = 0x0112
_SIDEWAYS = (5, 6, 7, 8)


def read_image(path: str | os.PathLike[str]) -> Tensor:
    """Return the image at `path` as `(3, height, width)` uint8 RGB, upright by its EXIF tag.

    Greyscale, palette and CMYK images are converted to RGB. Of 16-bit greyscale the high byte is
    kept. Transparent parts are shown on white, as image viewers do.

    Raises:
        DataError: There is no such file, or it does not decode to the last pixel.
    """
    must, remedy = "An image must be a readable file.", "Restore it or take it out of the list."
    with refusing(DataError, must, f"'{path}'", remedy):
        data = read_bytes(path, MOST_IMAGE_BYTES)
    return decode_image(data, path)


def read_pixels(path: str | os.PathLike[str]) -> Pixels:
    """Return the image at `path` as an array `(height, width, 3)`, else as `read_image` does."""
    pixels: Pixels = read_image(path).permute(1, 2, 0).numpy()
    return pixels


def decode_image(data: bytes, path: str | os.PathLike[str]) -> Tensor:
    """Return the image encoded in `data`, as `read_image` does; `path` is for the error message.

    Raises:
        DataError: The image does not decode to the last pixel.
    """
    try:
        with opened_image(data) as image:
            upright = image.getexif().get(_ORIENTATION, 1) == 1
            colours = to_rgb(image if upright else ImageOps.exif_transpose(image))
            # Colour operations and resizing are fast on channel after channel.
            pixels = np.stack([np.asarray(channel) for channel in colours.split()])
    except DECODER_ERRORS as error:
        reason = reason_of(error)
        if isinstance(error, UnidentifiedImageError):
            reason = f"no known image format in its {len(data)} bytes"
        raise DataError(
            f"An image must decode to the last pixel. Received '{path}': {reason}. "
            "Restore it or take it out of the list."
        ) from error
    return torch.from_numpy(pixels)


@dataclass(frozen=True)
class Header:
    """What the header of an image file states.

    Attributes:
        size: Height and width of the upright image.
        sideways: Whether the EXIF tag exchanges height and width.
        unsupported: Description of pixels that `read_image` refuses; empty if there are none.
    """

    size: tuple[int, int]
    sideways: bool
    unsupported: str


def read_header(path: str | os.PathLike[str]) -> Header:
    """Return what the header of the image at `path` states. No pixels are decoded.

    Raises:
        One of `DECODER_ERRORS`: The header has no size.
    """
    with open_file(path) as file, Image.open(file, formats=KNOWN_FORMATS) as image:
        require_pixels(image)
        width, height = image.size
        # Pillow would decode a PNG to search for EXIF data after the pixels.
        has_exif = image.format != "PNG" or "exif" in image.info
        sideways = has_exif and image.getexif().get(_ORIENTATION) in _SIDEWAYS
        unsupported = _unsupported(image)
    return Header((width, height) if sideways else (height, width), sideways, unsupported)


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Return height and width of the upright image at `path` from its header alone.

    Raises:
        One of `DECODER_ERRORS`: The header has no size.
    """
    return read_header(path).size


def image_of(images: ImageSet, index: int) -> Tensor:
    """Return the image with index `index` of `images` as `(3, height, width)` uint8 RGB.

    Raises:
        DataError: Its file does not decode.
    """
    path = images.records[index].path
    if path is not None:
        return read_image(path)
    if images.image is None:
        raise DataError(
            f"Image {index} of '{images.name}' must have a file or a maker. Received neither. "
            "Give the set a `image` function."
        )
    return torch.from_numpy(images.image(index)).permute(2, 0, 1)


def prepare(image: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Return `image`, `(3, h, w)` uint8, as the network's input `(3, height, width)` float32.

    Without `antialias`, resizing does not smooth before it shrinks, as in the originals and in
    `cv2.resize`. So other programs that serve the model compute the same pixels.
    """
    size = list(preprocessing.resized(*image.shape[-2:]))
    method = InterpolationMode(preprocessing.interpolation)
    resized = transform.resize(image, size, interpolation=method, antialias=preprocessing.antialias)
    whole = (preprocessing.height, preprocessing.width)
    if preprocessing.fit == "crop":
        resized = transform.center_crop(resized, list(whole))
    return padded(normalise(resized, preprocessing), whole)


def padded(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Return `(..., h, w)` in the upper left corner of zeros of `size`, height and width."""
    missing = [0, size[1] - values.shape[-1], 0, size[0] - values.shape[-2]]
    return torch.nn.functional.pad(values, missing) if any(missing) else values


def normalise(image: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Return `(image / 255 - mean) / std` for `(3, h, w)` uint8, as contiguous float32.

    Channels are in the order of the network. With `value_range` 255 there is no division by 255.
    """
    whole = 255 // preprocessing.value_range
    mean = torch.tensor(preprocessing.mean)[:, None, None]
    std = torch.tensor(preprocessing.std)[:, None, None]
    ordered = image.flip(-3) if preprocessing.channels == "bgr" else image
    floats = ordered.to(torch.float32, memory_format=torch.contiguous_format)
    return floats.sub_(mean * whole).div_(std * whole)


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an image of any mode as RGB, see `read_image`."""
    if image.mode == "RGB":
        return image
    if _has_16_bits(image):
        high_byte = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return Image.fromarray(high_byte).convert("RGB")
    if _unsupported(image):
        raise ValueError(f"{_unsupported(image)} have no known range, save 8 or 16 bits")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _has_16_bits(image: Image.Image) -> bool:
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")


def _unsupported(image: Image.Image) -> str:
    """Return a description of pixels whose range is unknown, from the header; else nothing."""
    unknown = image.mode in ("I", "F") and not _has_16_bits(image)
    return f"pixels of mode {image.mode}" if unknown else ""
