from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from flyweight.errors import DataError
from flyweight.tasks.metrics.wider_files import read_faces, write_faces

IMAGE = Path("somewhere/0--Parade/0_Parade_5.jpg")


def test_the_format_of_the_originals(tmp_path):
    boxes = np.array([[1.0, 2, 11, 22], [100.26, 50, 150, 90]])
    path = write_faces(tmp_path, IMAGE, boxes, np.array([0.25, 0.9996]), like_originals=True)
    assert path == tmp_path / "0--Parade/0_Parade_5.txt"
    assert path.read_text() == (
        "0--Parade/0_Parade_5.jpg\n2\n100.3 50.0 50.7 41.0 1.000\n1.0 2.0 11.0 21.0 0.250\n"
    )


@given(
    arrays(np.float64, st.tuples(st.integers(0, 5), st.just(5)), elements=st.floats(0, 1)),
)
def test_what_is_written_reads_back(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("faces")
    boxes = np.concatenate([rows[:, :2] * 900, rows[:, :2] * 900 + rows[:, 2:4] * 300], axis=1)
    write_faces(folder, IMAGE, boxes, rows[:, 4])
    (found,) = read_faces(folder)
    order = np.argsort(-rows[:, 4], kind="stable")
    assert (found.event, found.image) == ("0--Parade", "0_Parade_5")
    np.testing.assert_allclose(found.boxes, boxes[order], atol=0.011)
    np.testing.assert_allclose(found.scores, rows[order, 4], atol=1e-6)


def test_several_pictures_come_in_order(tmp_path):
    for name in ("1--B/2.jpg", "0--A/9.jpg", "1--B/10.jpg"):
        write_faces(tmp_path, Path(name), np.zeros((0, 4)), np.zeros(0))
    found = [f"{faces.event}/{faces.image}" for faces in read_faces(tmp_path)]
    assert found == ["0--A/9", "1--B/10", "1--B/2"]


@pytest.mark.parametrize("text", ["", "a\nb\n", "a\n2\n1 2 3 4 5\n", "a\n1\n1 2 3 4\n"])
def test_refuses_other_texts(tmp_path, text):
    with pytest.raises(DataError, match="must hold a text per image"):
        list(read_faces(tmp_path))
    path = tmp_path / "0--A/1.txt"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(DataError, match=r"rows `x y w h score`\. Received '.*1\.txt'"):
        list(read_faces(tmp_path))
