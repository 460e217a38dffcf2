from functools import partial

import numpy as np
from PIL import Image

from flyweight.pipeline.drawn_images import draw_file
from flyweight.tasks.drawing.colours import class_colour
from flyweight.tasks.drawing.maps import draw_map

LABELS = np.zeros((60, 90), dtype=np.uint8)
LABELS[:, 45:] = 1


def test_classes_have_their_colours_and_borders():
    drawn = np.asarray(draw_map(Image.new("RGB", (90, 60)), LABELS, ("sky", "road")))
    halves = [np.rint(np.array(class_colour(index)) / 2) for index in (0, 1)]
    assert np.abs(drawn[55, 10] - halves[0]).max() <= 1
    assert np.abs(drawn[55, 80] - halves[1]).max() <= 1
    assert tuple(drawn[55, 45]) == class_colour(1)


def test_the_background_stays_as_it_is():
    image = Image.effect_noise((90, 60), 80).convert("RGB")
    drawn = np.asarray(draw_map(image, LABELS, ("background", "road")))
    # Below the names, which stand in the upper left corner.
    assert np.array_equal(drawn[30:, :45], np.asarray(image)[30:, :45])
    assert not np.array_equal(drawn[30:, 45:], np.asarray(image)[30:, 45:])


def test_classes_without_names_for_their_pixels_are_drawn():
    labels = np.full((20, 20), 255, dtype=np.uint8)
    assert draw_map(Image.new("RGB", (20, 20)), labels, ("sky",)).size == (20, 20)


def test_a_file(tmp_path):
    Image.new("RGB", (90, 60)).save(tmp_path / "a.jpg")
    draw = partial(draw_map, labels=LABELS, names=("sky", "road"))
    draw_file(tmp_path / "a.jpg", tmp_path / "b.png", draw)
    with Image.open(tmp_path / "b.png") as drawn:
        assert drawn.size == (90, 60)
