import numpy as np
import pytest
from PIL import Image

from flyweight.errors import FileError
from flyweight.sensitivity import Point, Sensitivity

LINE = (35, 103, 201)


def curves(count=1, *, intervals=False, baseline=0.8, name="layer{}.conv.weight"):
    def point(ratio):
        value = baseline * (1 - 0.5 * ratio)
        ends = (value - 0.1 * baseline, value + 0.1 * baseline) if intervals else None
        return Point(ratio, value, ends)

    layers = {name.format(place): tuple(map(point, (0.3, 0.6, 0.9))) for place in range(count)}
    return Sensitivity("map_50", baseline, layers)


def pixels(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def near(found, colour):
    return (abs(found - colour).max(axis=-1) < 12).sum()


def dashed(found):
    """Where the image is reddish: thin lines are blended with the paper."""
    return (found[..., 0] - found[..., 2]) > 40


def test_curves_and_the_limit_are_drawn(tmp_path):
    rows = []
    for name, drop in (("a", 0.05), ("b", 0.4)):
        curves().draw(tmp_path / f"{name}.png", max_drop=drop)
        found = pixels(tmp_path / f"{name}.png")
        assert near(found, LINE) > 200
        assert dashed(found).sum() > 50
        rows.append(np.flatnonzero(dashed(found).any(axis=1)).mean())
    assert rows[1] > rows[0] + 10  # a larger loss is further down


def test_intervals_are_bands_around_the_line(tmp_path):
    curves().draw(tmp_path / "plain.png")
    curves(intervals=True).draw(tmp_path / "bands.png")
    tinted = [
        ((found[..., 2] - found[..., 0]) > 25).sum()
        for found in (pixels(tmp_path / "plain.png"), pixels(tmp_path / "bands.png"))
    ]
    assert tinted[1] > 3 * tinted[0]


def test_every_layer_has_its_chart_and_160_stay_a_picture(tmp_path):
    sizes = {}
    for count in (1, 4, 18, 160):
        curves(count).draw(tmp_path / f"{count}.png")
        found = pixels(tmp_path / f"{count}.png")
        sizes[count] = near(found, LINE)
        assert max(found.shape) < 6000
    assert sizes[18] == pytest.approx(18 * sizes[1], rel=0.1)
    assert sizes[160] == pytest.approx(160 * sizes[1], rel=0.1)


def test_any_metric_and_any_name_is_drawn(tmp_path):
    curves(baseline=12.5, name="a_$very$_long_{}_" + 60 * "x").draw(tmp_path / "a.png")
    flat = Sensitivity("m", 0.5, {"a": (Point(0.5, 0.5),)})
    flat.draw(tmp_path / "flat.png")
    assert near(pixels(tmp_path / "flat.png"), LINE) > 50


def test_a_file_that_cannot_be_written_is_one_letter(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="must be writable"):
        curves().draw(tmp_path / "file" / "a.png")
