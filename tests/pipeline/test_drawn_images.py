from functools import partial

import numpy as np
import pytest
from PIL import Image

from flyweight.errors import DataError, FileError
from flyweight.pipeline.drawn_images import draw_file
from flyweight.tasks.drawing.boxes import draw_boxes

GREY = (128, 128, 128)


def boxes_of(prediction, labels, threshold=0.0):
    return partial(draw_boxes, prediction=prediction, labels=labels, threshold=threshold)


def test_a_file_is_drawn_upright(tmp_path, make_prediction):
    source, result = tmp_path / "in.jpg", tmp_path / "deep" / "out.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 40), GREY).save(source, exif=exif)
    drawn = boxes_of(make_prediction([(5, 30, 35, 70)], [1.0], [0]), ["a"])
    draw_file(source, result, drawn)
    with Image.open(result) as drawn:
        assert drawn.size == (40, 80)
    assert [path.name for path in result.parent.iterdir()] == ["out.png"]


def test_a_picture_that_does_not_decode(tmp_path, make_prediction):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    for name in ("broken.jpg", "absent.jpg"):
        with pytest.raises(DataError, match=name) as error:
            draw_file(tmp_path / name, tmp_path / "out.png", boxes_of(make_prediction(), ["a"]))
        assert "\n" not in str(error.value)
    assert not (tmp_path / "out.png").exists()


def test_a_name_that_is_no_pictures(tmp_path, make_prediction):
    Image.new("RGB", (8, 8)).save(tmp_path / "in.png")
    with pytest.raises(FileError, match=r"out\.txt"):
        draw_file(tmp_path / "in.png", tmp_path / "out.txt", boxes_of(make_prediction(), ["a"]))


@pytest.mark.data
def test_a_real_picture(data_root, tmp_path, make_prediction):
    path = sorted((data_root / "det_bccd" / "JPEGImages").glob("*.jpg"))[0]
    prediction = make_prediction([(100, 100, 300, 320), (0, 0, 80, 90)], [0.97, 0.4], [1, 0])
    draw_file(path, tmp_path / "out.jpg", boxes_of(prediction, ["RBC", "WBC"], threshold=0.3))
    with Image.open(path) as before, Image.open(tmp_path / "out.jpg") as after:
        assert before.size == after.size
        change = np.abs(np.asarray(before.convert("RGB"), int) - np.asarray(after, int)).mean(
            axis=2
        )
    assert change[98:103, 110:290].mean() > 30
    assert change[200:300, 150:250].mean() < 3
