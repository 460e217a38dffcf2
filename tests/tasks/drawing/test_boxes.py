import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from flyweight.errors import DataError, FileError
from flyweight.tasks.drawing.boxes import class_colour, draw_boxes, draw_file, readable, text_colour

GREY = (128, 128, 128)


def is_colour(image, colour):
    return (np.asarray(image) == colour).all(axis=2)


def count_near(image, colour):
    """Pixels almost of a colour: letters are smoothed."""
    distance = np.abs(np.asarray(image, int) - colour).sum(axis=2)
    return int((distance < 150).sum())


def luminance(colour):
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (channel / 255 for channel in colour)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colours_are_stable_and_neighbours_differ():
    colours = [class_colour(index) for index in range(80)]
    assert colours == [class_colour(index) for index in range(80)]
    assert len(set(colours)) == 80
    for first, second in itertools.combinations(colours[:12], 2):
        assert np.abs(np.subtract(first, second)).sum() > 90
    for first, second in itertools.pairwise(colours):
        assert np.abs(np.subtract(first, second)).sum() > 90


@pytest.mark.parametrize("index", range(80))
def test_letters_stand_out_from_their_tag(index):
    background = class_colour(index)
    levels = sorted((luminance(background), luminance(text_colour(background))))
    assert (levels[1] + 0.05) / (levels[0] + 0.05) >= 4.3


def test_outlines_lie_on_the_boxes_and_the_input_is_untouched(make_prediction):
    image = Image.new("RGB", (300, 200), GREY)
    drawn = draw_boxes(image, make_prediction([(60, 50, 200, 150)], [0.9], [0]), ["a"])
    mark = is_colour(drawn, class_colour(0))
    assert mark[50:52, 60:200].all()
    assert mark[149:151, 60:200].all()
    assert mark[50:150, 60:62].all()
    assert mark[50:150, 199:201].all()
    inside = np.asarray(drawn)[60:140, 70:190]
    assert (inside == GREY).all()
    assert image.getcolors() == [(300 * 200, GREY)]


def test_boxes_at_and_beyond_the_border_remain_visible(make_prediction):
    image = Image.new("RGB", (300, 200), GREY)
    boxes = [(-50, -50, 400, 300), (298, 198, 340, 260)]
    drawn = draw_boxes(image, make_prediction(boxes, [0.9, 0.8], [0, 1]), ["a", "b"])
    mark = is_colour(drawn, class_colour(0))
    assert mark[60:190, 0].all()
    assert mark[60:170, 299].all()
    assert mark[199, 10:200].all()
    assert is_colour(drawn, class_colour(1)).any()


def test_lines_grow_with_the_picture(make_prediction):
    widths = []
    for side in (200, 2000):
        box = [(side * 0.3, side * 0.3, side * 0.7, side * 0.7)]
        drawn = draw_boxes(Image.new("RGB", (side, side)), make_prediction(box, [1.0], [0]), ["a"])
        widths.append(int(is_colour(drawn, class_colour(0))[side // 2, : side // 2].sum()))
    assert widths == [2, 11]


def test_only_scores_from_the_threshold_up_are_drawn(make_prediction):
    image = Image.new("RGB", (200, 200), GREY)
    prediction = make_prediction([(10, 40, 60, 90), (110, 110, 180, 180)], [0.75, 0.5], [0, 1])
    drawn = draw_boxes(image, prediction, ["a", "b"], threshold=0.75)
    assert is_colour(drawn, class_colour(0)).any()
    assert not is_colour(drawn, class_colour(1)).any()
    blank = draw_boxes(image, make_prediction(), ["a"], threshold=0.5)
    assert blank.tobytes() == image.tobytes()


def test_tags_of_neighbours_do_not_cover_each_other(make_prediction):
    image = Image.new("RGB", (400, 300), GREY)
    boxes = [(100, 100, 220, 220), (104, 102, 224, 226)]
    alone = [
        count_near(
            draw_boxes(image, make_prediction([box], [0.9], [label]), ["cat", "dog"]),
            text_colour(class_colour(label)),
        )
        for label, box in enumerate(boxes)
    ]
    both = draw_boxes(image, make_prediction(boxes, [0.9, 0.9], [0, 1]), ["cat", "dog"])
    letters = count_near(both, text_colour(class_colour(0)))
    # A smoothed pixel or two may meet the other box's line.
    assert abs(letters - sum(alone)) <= 3
    assert min(alone) > 20


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1", "I;16"])
def test_pictures_of_any_mode(make_prediction, mode):
    drawn = draw_boxes(Image.new(mode, (60, 60)), make_prediction([(5, 30, 50, 50)], [1], [0]), "a")
    assert drawn.mode == "RGB"


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 2), (16, 16)])
def test_tiny_pictures(make_prediction, size):
    drawn = draw_boxes(Image.new("RGB", size), make_prediction([(0, 0, 9, 9)], [1], [0]), ["a"])
    assert drawn.size == size


def test_labels_in_any_script_are_readable_or_numbered(make_prediction):
    labels = ["cat", "Straßenbahn", "собака", "飞机", "\U0010fffe", "two words", ""]
    texts = [text for text, _ in readable(labels, 14)]
    assert texts[:2] == labels[:2]
    assert texts[4] == "#4"
    assert texts[5] == "two words"
    assert all(
        text in (label, f"#{i}") for i, (text, label) in enumerate(zip(texts, labels, strict=True))
    )
    boxes = [(10, 20 * i, 90, 20 * i + 15) for i in range(len(labels))]
    prediction = make_prediction(boxes, [0.5] * len(labels), range(len(labels)))
    draw_boxes(Image.new("RGB", (100, 150)), prediction, labels)


def test_a_file_is_drawn_upright(tmp_path, make_prediction):
    source, result = tmp_path / "in.jpg", tmp_path / "deep" / "out.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 40), GREY).save(source, exif=exif)
    draw_file(source, make_prediction([(5, 30, 35, 70)], [1.0], [0]), ["a"], result)
    with Image.open(result) as drawn:
        assert drawn.size == (40, 80)
    assert [path.name for path in result.parent.iterdir()] == ["out.png"]


def test_a_picture_that_does_not_decode(tmp_path, make_prediction):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    for name in ("broken.jpg", "absent.jpg"):
        with pytest.raises(DataError, match=name) as error:
            draw_file(tmp_path / name, make_prediction(), ["a"], tmp_path / "out.png")
        assert "\n" not in str(error.value)
    assert not (tmp_path / "out.png").exists()


def test_a_name_that_is_no_pictures(tmp_path, make_prediction):
    Image.new("RGB", (8, 8)).save(tmp_path / "in.png")
    with pytest.raises(FileError, match=r"out\.txt"):
        draw_file(tmp_path / "in.png", make_prediction(), ["a"], tmp_path / "out.txt")


@pytest.mark.data
def test_a_real_picture(data_root, tmp_path, make_prediction):
    path = sorted((data_root / "det_bccd" / "JPEGImages").glob("*.jpg"))[0]
    prediction = make_prediction([(100, 100, 300, 320), (0, 0, 80, 90)], [0.97, 0.4], [1, 0])
    draw_file(path, prediction, ["RBC", "WBC"], tmp_path / "out.jpg", threshold=0.3)
    with Image.open(path) as before, Image.open(tmp_path / "out.jpg") as after:
        assert before.size == after.size
        change = np.abs(np.asarray(before.convert("RGB"), int) - np.asarray(after, int)).mean(
            axis=2
        )
    assert change[98:103, 110:290].mean() > 30
    assert change[200:300, 150:250].mean() < 3


def test_masks_tint_their_pixels(make_prediction):
    prediction = replace(
        make_prediction([[40, 40, 160, 160]], [0.9], [1]),
        masks=torch.zeros(1, 200, 200, dtype=torch.bool),
    )
    prediction.masks[0, 60:140, 60:140] = True
    plain = Image.new("RGB", (200, 200), GREY)
    drawn = np.asarray(draw_boxes(plain, prediction, ["a", "b"])).astype(int)
    wanted = 0.55 * np.array(GREY) + 0.45 * np.array(class_colour(1))
    assert np.abs(drawn[70:130, 70:130] - wanted).max() <= 1
    assert (drawn[50:55, 100] == GREY).all()
    below = draw_boxes(plain, prediction, ["a", "b"], threshold=0.95)
    assert np.array_equal(np.asarray(below), np.asarray(plain))
