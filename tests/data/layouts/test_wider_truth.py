import shutil

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from flyweight.data.layouts.wider import read_wider
from flyweight.data.layouts.wider_truth import LEVELS, read_truth
from flyweight.errors import DataError


def _column(items):
    cells = np.empty((len(items), 1), dtype=object)
    for row, item in enumerate(items):
        cells[row, 0] = item
    return cells


def write_truth(folder, events):
    """Write the four files; `events`: event -> image -> (rows x y w h, kept numbers by level)."""
    folder.mkdir(exist_ok=True)
    names = _column(list(events))
    files = _column([_column(list(images)) for images in events.values()])
    rows = (_column([np.array(p[0]) for p in images.values()]) for images in events.values())
    common = {"event_list": names, "file_list": files, "face_bbx_list": _column(list(rows))}
    savemat(folder / "wider_face_val.mat", common)
    for level in LEVELS:
        kept = (
            _column([np.array(p[1].get(level, []), dtype=np.uint8)[:, None] for p in e.values()])
            for e in events.values()
        )
        savemat(folder / f"wider_{level}_val.mat", {**common, "gt_list": _column(list(kept))})
    return folder


@pytest.fixture
def folder(tmp_path):
    one = {
        "a": ([[1, 2, 30, 40], [5, 6, 70, 80]], {"easy": [2], "medium": [2], "hard": [1, 2]}),
        "b": ([[0, 0, 0, 0]], {}),
    }
    return write_truth(tmp_path / "truth", {"0--Parade": one, "1--Handshaking": {"c": one["a"]}})


def test_reads_what_was_written(folder):
    first, second, third = read_truth(folder)
    assert (first.event, first.image) == ("0--Parade", "a")
    np.testing.assert_array_equal(first.boxes, [[1, 2, 31, 42], [5, 6, 75, 86]])
    np.testing.assert_array_equal(first.counts, [[False, False, True], [True, True, True]])
    assert not second.counts.any()
    assert (third.event, third.image) == ("1--Handshaking", "c")


def test_says_what_is_wrong(folder, tmp_path):
    with pytest.raises(DataError, match=r"four \.mat files"):
        read_truth(tmp_path)
    easy = folder / "wider_easy_val.mat"
    shutil.copy(folder / "wider_face_val.mat", easy)
    with pytest.raises(DataError, match="must hold the variable 'gt_list'"):
        read_truth(folder)
    easy.write_bytes(b"no matlab file at all" * 20)
    with pytest.raises(DataError, match="must be a MATLAB file"):
        read_truth(folder)
    other = write_truth(tmp_path / "other", {"0--Parade": {"a": ([[1, 2, 3, 4]], {"easy": [1]})}})
    shutil.copy(other / "wider_easy_val.mat", easy)
    with pytest.raises(DataError, match="four files of one set"):
        read_truth(folder)


@pytest.mark.data
def test_the_published_files(data_root):
    folder = data_root / "face_wider_val_gt"
    truth = read_truth(folder)
    assert len(truth) == 3226
    assert len({image.event for image in truth}) == 61
    counts = np.concatenate([image.counts for image in truth])
    assert counts.sum(axis=0).tolist() == [7211, 13319, 31958]
    faces = loadmat(folder / "wider_face_val.mat")["face_bbx_list"][0, 0][0, 0]
    np.testing.assert_array_equal(truth[0].boxes[:, 2], faces[:, 0] + faces[:, 2])


@pytest.mark.data
def test_text_and_matlab_files_of_one_set_agree(data_root):
    root = data_root / "face_mask853"
    truth = {image.image: image for image in read_truth(root / "wider_eval_test")}
    for record in read_wider(root, "test").records:
        found = truth[record.path.stem]
        assert found.event == record.path.parent.name
        np.testing.assert_array_equal(found.boxes, record.boxes)
        assert found.counts[:, 2].all()
