import io
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from flyweight.config.preprocessing import Preprocessing
from flyweight.data.images import (
    decode_image,
    image_of,
    image_size,
    normalise,
    prepare,
    read_image,
)
from flyweight.data.layouts.digits import make_digits
from flyweight.data.records import BoxSet
from flyweight.errors import DataError

NOISE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def _encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _pixels(data):
    return decode_image(data, "x").permute(1, 2, 0).numpy()


def test_png_is_exact():
    image = decode_image(_encoded(Image.fromarray(NOISE), "PNG"), "x")
    assert image.shape == (3, 20, 30)
    assert image.dtype == torch.uint8
    np.testing.assert_array_equal(image.permute(1, 2, 0), NOISE)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("quality", [30, 75, 95])
def test_jpeg_has_the_pixels_that_pillow_sees(mode, quality):
    data = _encoded(Image.fromarray(NOISE).convert(mode), "JPEG", quality=quality)
    np.testing.assert_array_equal(_pixels(data), Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_pictures_are_turned_upright(tmp_path, orientation, kind):
    """Red is top left, green top right in the upright image, whatever the tag."""
    upright = np.zeros((32, 48, 3), dtype=np.uint8)
    upright[:16, :24] = (255, 0, 0)
    upright[:16, 24:] = (0, 255, 0)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "x"
    image = Image.fromarray(np.ascontiguousarray(stored))
    image.save(path, kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {}))
    image = read_image(path)
    assert image.shape == (3, 32, 48)
    assert image_size(path) == (32, 48)
    assert (image[:, 4, 4].int() - torch.tensor([255, 0, 0])).abs().max() < 12
    assert (image[:, 4, 44].int() - torch.tensor([0, 255, 0])).abs().max() < 12


def test_sixteen_bits_keep_the_high_byte():
    deep = np.array([[0, 255, 256], [0x1234, 0x80FF, 0xFFFF]], dtype=np.uint16)
    pixels = _pixels(_encoded(Image.fromarray(deep), "PNG"))
    np.testing.assert_array_equal(pixels[:, :, 0], [[0, 0, 1], [0x12, 0x80, 0xFF]])
    np.testing.assert_array_equal(pixels[:, :, 0], pixels[:, :, 2])


def test_transparency_shows_white():
    layer = np.zeros((1, 3, 4), dtype=np.uint8)
    layer[0, :, 0] = 200
    layer[0, :, 3] = (0, 255, 51)
    pixels = _pixels(_encoded(Image.fromarray(layer), "PNG"))
    np.testing.assert_array_equal(pixels[0], [[255, 255, 255], [200, 0, 0], [244, 204, 204]])


def test_palettes_bits_and_cmyk_become_rgb():
    colours = Image.fromarray(np.repeat([[[250, 0, 0], [0, 0, 250]]], 4, axis=0).astype(np.uint8))
    palette = colours.quantize(2)
    np.testing.assert_array_equal(_pixels(_encoded(palette, "PNG")), np.asarray(colours))
    transparent = _encoded(palette, "PNG", transparency=palette.getpixel((1, 0)))
    np.testing.assert_array_equal(_pixels(transparent)[0], [[250, 0, 0], [255, 255, 255]])
    bits = Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).convert("1")
    np.testing.assert_array_equal(_pixels(_encoded(bits, "PNG"))[0], [[0] * 3, [255] * 3])
    cmyk = _encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95)
    assert np.abs(_pixels(cmyk)[4, 4].astype(int) - [255, 0, 0]).max() < 12


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF"])
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # On top of the error.
@given(cut=st.floats(0, 0.7))
@settings(max_examples=15, deadline=None)
def test_a_truncated_picture_is_refused_by_name(kind, cut):
    data = _encoded(Image.fromarray(NOISE), kind)
    with pytest.raises(DataError, match=r"must decode to the last pixel\. Received 'a/b'") as error:
        decode_image(data[: int(cut * len(data))], "a/b")
    assert "\n" not in str(error.value)


@given(st.binary(max_size=64), st.sampled_from([b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n"]))
@settings(deadline=None)
def test_arbitrary_bytes_are_refused(data, start):
    with pytest.raises(DataError):
        decode_image(start + data, "x")


RED, BLUE = (Image.new("RGB", (8, 6), colour) for colour in ((250, 0, 0), (0, 0, 250)))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "MPO"])
def test_of_several_frames_the_first_is_read(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    data = _encoded(RED, kind, save_all=True, append_images=[BLUE], **options)
    assert np.abs(_pixels(data).astype(int) - [250, 0, 0]).max() <= 2


@pytest.mark.parametrize("mode", ["LAB", "YCbCr", "CMYK", "P", "RGBA", "RGBX"])
def test_other_colours_become_rgb(mode):
    image = RED.quantize(2) if mode == "P" else RED.convert(mode)
    assert np.abs(_pixels(_encoded(image, "TIFF")).astype(int) - [250, 0, 0]).max() <= 6


def test_grey_with_transparency_and_few_bits():
    layer = Image.merge("LA", [Image.new("L", (2, 1), 100), Image.new("L", (2, 1), 0)])
    layer.putpixel((1, 0), (100, 255))
    np.testing.assert_array_equal(_pixels(_encoded(layer, "PNG"))[0], [[255] * 3, [100] * 3])
    two_bits = _png(4, 1, depth=2, kind=0, row=bytes([0b00011011]))
    np.testing.assert_array_equal(_pixels(two_bits)[0, :, 0], [0, 85, 170, 255])


def test_sixteen_bits_of_every_colour():
    colours = struct.pack(">6H", 0x1234, 0xFFFF, 0x00FF, 0x80FF, 0, 0x7F00)
    pixels = _pixels(_png(2, 1, depth=16, kind=2, row=colours))
    np.testing.assert_array_equal(pixels[0], [[0x12, 0xFF, 0], [0x80, 0, 0x7F]])
    half = _png(1, 1, depth=16, kind=6, row=struct.pack(">4H", 0xFFFF, 0, 0, 0x8000))
    np.testing.assert_array_equal(_pixels(half)[0], [[255, 127, 127]])


def test_odd_sizes_and_odd_tags():
    np.testing.assert_array_equal(
        _pixels(_encoded(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG")), [[[1, 2, 3]]]
    )
    unknown = Image.Exif()
    unknown[0x0112] = 99
    for exif in (unknown, b"Exif\0\0broken!!"):
        assert _pixels(_encoded(RED, "JPEG", exif=exif)).shape == (6, 8, 3)
    # Bytes after the end are somebody's notes.
    assert _pixels(_encoded(RED, "JPEG") + b"notes").shape == (6, 8, 3)


def test_a_picture_of_absurd_size_is_refused_before_it_fills_the_memory():
    with pytest.raises(DataError, match="exceeds limit"):
        decode_image(_png(60_000, 60_000, depth=8, kind=2, row=b""), "x")


@pytest.mark.parametrize("text", [b"", b"<html>404</html>", b"<svg xmlns='x'></svg>"])
def test_what_is_no_picture_is_named(text):
    with pytest.raises(DataError, match=f"no known image format in its {len(text)} bytes"):
        decode_image(text, "x")


def _png(width, height, *, depth, kind, row):
    """A PNG of one row, of kinds that Pillow reads and does not write."""

    def chunk(name, content):
        checked = name + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def test_refuses_a_missing_file_and_unknown_ranges(tmp_path):
    with pytest.raises(DataError, match=r"must be a readable file\. Received '.*none\.jpg': No su"):
        read_image(tmp_path / "none.jpg")
    floats = _encoded(Image.fromarray(np.ones((2, 2), dtype=np.float32)), "TIFF")
    with pytest.raises(DataError, match="pixels of mode F have no known range"):
        decode_image(floats, "x")


def test_picture_of_a_made_up_set():
    box_set = make_digits("train", 1, size=40)
    expected = torch.from_numpy(box_set.image(0)).permute(2, 0, 1)
    assert torch.equal(image_of(box_set, 0), expected)
    with pytest.raises(DataError, match="must have a file or a maker"):
        image_of(BoxSet("x", ("a",), box_set.records), 0)


def test_prepare_normalises():
    preprocessing = Preprocessing(height=20, width=30)
    image = torch.from_numpy(NOISE).permute(2, 0, 1)
    expected = (NOISE / 255 - preprocessing.mean) / preprocessing.std
    prepared = prepare(image, preprocessing)
    np.testing.assert_allclose(prepared.permute(1, 2, 0), expected, atol=2e-6)
    assert prepared.is_contiguous()
    assert prepared.dtype == torch.float32
    assert torch.equal(normalise(image, preprocessing), prepared)


def _cubic(distance, a=-0.75):
    x = abs(distance)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def test_prepare_resizes_as_opencv_does():
    """Cubic convolution with a = -0.75 on pixel centres, no smoothing before shrinking."""
    preprocessing = Preprocessing(height=20, width=12, mean=(0, 0, 0), std=(1, 1, 1))
    prepared = prepare(torch.from_numpy(NOISE).permute(2, 0, 1), preprocessing) * 255
    for column in (0, 5, 11):
        centre = (column + 0.5) * 30 / 12 - 0.5
        expected = np.zeros((20, 3))
        for tap in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
            expected += _cubic(centre - tap) * NOISE[:, min(max(tap, 0), 29)].astype(float)
        found = prepared[:, :, column].T.numpy()
        np.testing.assert_allclose(found, np.clip(expected, 0, 255), atol=0.51)


def test_pad_keeps_the_aspect_and_fills_with_what_the_mean_becomes():
    image = torch.full((3, 40, 80), 255, dtype=torch.uint8)
    made = prepare(image, Preprocessing(height=64, width=64, fit="pad"))
    assert made.shape == (3, 64, 64)
    assert (made[:, :32] > 1).all()
    assert (made[:, 32:] == 0).all()


def test_crop_shows_the_centre():
    image = torch.zeros(3, 100, 200, dtype=torch.uint8)
    image[:, 25:75, 75:125] = 255
    settings = Preprocessing(
        height=50, width=50, fit="crop", crop_share=0.5, mean=(0, 0, 0), std=(1, 1, 1)
    )
    assert (prepare(image, settings) == 1).all()


def test_channels_come_in_the_networks_order_and_range():
    image = torch.tensor([10, 20, 30], dtype=torch.uint8)[:, None, None].expand(3, 4, 4)
    settings = Preprocessing(
        height=4, width=4, mean=(1, 2, 3), std=(1, 2, 3), value_range=255, channels="bgr"
    )
    assert prepare(image, settings)[:, 0, 0].tolist() == [29.0, 9.0, pytest.approx(7 / 3)]
