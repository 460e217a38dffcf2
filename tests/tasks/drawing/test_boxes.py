from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from flyweight.tasks.drawing.boxes import draw_boxes
from flyweight.tasks.drawing.colours import class_colour, text_colour

GREY = (128, 128, 128)


def is_colour(image, colour):
    return (np.asarray(image) == colour).all(axis=2)


def count_near(image, colour):
    """Pixels almost of a colour: letters are smoothed."""
    distance = np.abs(np.asarray(image, int) - colour).sum(axis=2)
    return int((distance < 150).sum())


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
