import itertools

import numpy as np
import pytest

from flyweight.tasks.drawing.colours import class_colour, text_colour


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
