from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flyweight.config.data import DataConfig
from flyweight.data.check import check, require_sound
from flyweight.data.check_two_splits import check_apart
from flyweight.data.loading import open_set
from flyweight.data.records import BoxRecord, BoxSet, Problem, as_boxes
from flyweight.errors import DataError

NOISE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def _record(path, *boxes, labels=None, size=(48, 64)):
    count = len(boxes)
    return BoxRecord(
        path=path,
        height=size[0],
        width=size[1],
        boxes=as_boxes(boxes),
        labels=np.array(labels if labels is not None else [0] * count, dtype=np.int64),
        difficult=np.zeros(count, dtype=bool),
        crowd=np.zeros(count, dtype=bool),
        lines=tuple(range(10, 10 + count)),
        annotation=Path("a.xml"),
    )


def _set(*records, name="x/train", labels=("cat", "dog"), **rest):
    return BoxSet(name, labels, records, source=Path("train.txt"), **rest)


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "x.jpg"
    Image.fromarray(NOISE).save(path)
    return path


def _messages(*records, decode=False):
    """Problems of single images, without those of the whole split."""
    found = check(_set(*records), decode=decode)
    whole = ("no_objects", "unused_class")
    return [str(problem) for problem in found if problem.kind not in whole]


def test_a_sound_set_has_no_problems(image):
    boxes = [(0, 0, 64, 48), (1, 1, 2, 2)]
    assert check(_set(_record(image, *boxes, labels=[0, 1])), decode=True) == ()


@pytest.mark.parametrize(
    ("box", "message"),
    [
        (
            (1, 1, float("nan"), 4),
            "a box must have finite corners. Received 'cat' at 1, 1, nan, 4.",
        ),
        (
            (1, 1, float("inf"), 4),
            "a box must have finite corners. Received 'cat' at 1, 1, inf, 4.",
        ),
        ((5, 1, 5, 4), "a box must have width and height above 0. Received 'cat' at 5, 1, 5, 4."),
        ((5, 4, 9, 3), "a box must have width and height above 0. Received 'cat' at 5, 4, 9, 3."),
        ((5, 4, 66, 9), "a box must lie in its image of 64x48. Received 'cat' at 5, 4, 66, 9."),
        ((-2, 4, 6, 9), "a box must lie in its image of 64x48. Received 'cat' at -2, 4, 6, 9."),
    ],
)
def test_bad_boxes(image, box, message):
    (found,) = _messages(_record(image, (0, 0, 9, 9), box))
    assert found.startswith(f"a.xml:11: object 2: {message}")


def test_a_box_may_stand_out_by_one_pixel(image):
    assert _messages(_record(image, (-1, 0, 65, 49))) == []


def test_a_box_of_one_class_may_be_given_once(image):
    boxes = [(1, 1, 5, 5)] * 3
    assert _messages(_record(image, *boxes, labels=[0, 1, 0])) == [
        (
            "a.xml:12: object 3: a box must be given once. Received 'cat' at 1, 1, 5, 5. "
            "Remove the copy."
        )
    ]


def test_an_unknown_size_is_taken_from_the_picture(image):
    (found,) = _messages(_record(image, (1, 1, 70, 5), size=(0, 0)))
    assert "a box must lie in its image of 64x48" in found


def test_a_wrong_size(image):
    assert _messages(_record(image, size=(48, 60))) == [
        (
            "a.xml: the size must be that of the image. Received width 60, height 48 for "
            "'x.jpg' of width 64, height 48. Correct the size and the boxes."
        )
    ]


def test_a_sideways_size_is_explained(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.jpg"
    Image.fromarray(NOISE).save(path, exif=exif)
    (found,) = _messages(_record(path, size=(48, 64)))
    assert "(sideways: its EXIF tag turns it)" in found
    assert _messages(_record(path, size=(64, 48)), decode=True) == []


def test_missing_and_undecodable_pictures(tmp_path, image):
    missing, empty, text = (tmp_path / name for name in ("no.jpg", "empty.jpg", "text.jpg"))
    empty.touch()
    text.write_text("hello")
    found = _messages(_record(missing), _record(empty), _record(text))
    assert found[0] == (
        f"{missing}: an image that 'a.xml' describes must exist. Received no such file. "
        "Restore it or take it out of the list."
    )
    for path, message in zip((empty, text), found[1:], strict=True):
        assert message.startswith(f"{path}: an image must decode to the last pixel. Received: ")
        assert "\n" not in message


@pytest.mark.parametrize("kind", ["jpg", "png"])
@pytest.mark.parametrize("decode", [False, True])
def test_truncated_pictures_are_found_even_without_decoding(tmp_path, kind, decode):
    path = tmp_path / f"x.{kind}"
    Image.fromarray(NOISE).save(path)
    path.write_bytes(path.read_bytes()[: -len(path.read_bytes()) // 3])
    (found,) = _messages(_record(path), decode=decode)
    assert found.startswith(f"{path}: an image must decode to the last pixel.")


def test_damage_in_the_middle_takes_decoding_to_find(tmp_path):
    path = tmp_path / "x.png"
    Image.fromarray(NOISE).save(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    assert _messages(_record(path)) == []
    assert len(_messages(_record(path), decode=True)) == 1


def test_a_jpeg_with_much_behind_its_end_is_sound(image):
    with image.open("ab") as file:
        file.write(bytes(10_000))
    assert _messages(_record(image)) == []


def test_an_unreadable_picture(image, monkeypatch):
    def refuse(file, **_):
        raise PermissionError(13, "Permission denied", str(file))

    # Root may read everything, so the refusal is made here rather than by the file's mode.
    monkeypatch.setattr(Image, "open", refuse)
    (found,) = _messages(_record(image))
    assert "Permission denied" in found


@pytest.mark.parametrize("kind", ["bmp", "tif", "gif", "webp", "ppm"])
def test_truncated_pictures_of_all_formats_are_found(tmp_path, kind):
    path = tmp_path / f"x.{kind}"
    Image.fromarray(NOISE).save(path)
    assert _messages(_record(path)) == []
    path.write_bytes(path.read_bytes()[:-500])
    (found,) = _messages(_record(path))
    assert found.startswith(f"{path}: an image must decode to the last pixel.")


def test_an_empty_split_and_a_repeated_picture(image):
    assert [str(problem) for problem in check(_set())] == [
        (
            "train.txt: a split must have at least one usable image. Received none. Check the "
            "list and the problems named with it."
        )
    ]
    assert _messages(_record(image), _record(image)) == [
        (
            f"{image}: an image must be listed once. Received it again. Remove the copy from "
            "'train.txt'."
        )
    ]


def test_what_the_reader_noted_comes_first(image):
    noted = Problem(Path("b.xml"), 3, "noted.")
    assert check(_set(_record(image), problems=(noted,)))[0] is noted


def test_require_sound_counts_names_and_lists(tmp_path, image):
    bad = _set(_record(image, (5, 1, 5, 4), (1, 1, 99, 9)), _record(tmp_path / "no.jpg"))
    listing = tmp_path / "problems.txt"
    with pytest.raises(DataError) as error:
        require_sound(bad, list_to=listing)
    assert str(error.value) == (
        "Every image and box must be usable. Received 3 problems in 2 files, first: "
        "a.xml:10: object 1: a box must have width and height above 0. Received 'cat' at "
        f"5, 1, 5, 4. Correct or remove it. All are listed in '{listing}'."
    )
    assert listing.read_text().splitlines() == [str(problem) for problem in check(bad)]
    with pytest.raises(DataError, match="List them all with: flyweight check-data"):
        require_sound(bad)


def test_require_sound_passes_sound_splits(tmp_path, image):
    copy = tmp_path / "other.png"
    Image.fromarray(NOISE[::-1]).save(copy)
    listing, box = tmp_path / "problems.txt", (1, 1, 9, 9)
    splits = _set(_record(image, box)), _set(_record(copy, box), name="x/val")
    found = require_sound(*splits, decode=True, list_to=listing)
    assert not listing.exists()
    for split in found:
        (noted,) = split.problems
        assert (noted.kind, noted.stops) == ("unused_class", False)
        assert "Received no object of 'dog' in 1 image." in str(noted)
    with pytest.raises(DataError, match="must not be in both training and validation"):
        require_sound(splits[0], splits[0])


@pytest.mark.data
@pytest.mark.parametrize("name", ["det_bccd", "det_cards", "det_deeppcb", "face_mask853"])
def test_the_real_sets_are_sound(data_root, name):
    root = str(data_root / name)
    splits = [
        open_set(DataConfig(format="voc", root=root, val=split), "val")
        for split in ("train", "val", "test")
    ]
    for split in splits:
        assert check(split, decode=True) == ()
    train, val, test = splits
    assert check_apart(train, val) == ()
    assert check_apart(train, test) == ()
