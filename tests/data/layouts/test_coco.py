import json

import numpy as np
import pytest

from flyweight.data.layouts.coco import read_coco
from flyweight.data.layouts.voc import read_voc
from flyweight.errors import DataError


def _content():
    return {
        "images": [
            {"id": 5, "file_name": "a.jpg", "height": 48, "width": 64},
            {"id": 2, "file_name": "b.jpg"},
        ],
        "annotations": [
            {"image_id": 2, "category_id": 90, "bbox": [1, 2, 3, 4], "iscrowd": 1},
            {"image_id": 5, "category_id": 7, "bbox": [0.5, 0, 10, 20]},
        ],
        "categories": [{"id": 90, "name": "zebra"}, {"id": 7, "name": "person"}],
    }


def _write(root, content, name="instances_train2017.json"):
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / name).write_text(json.dumps(content))
    return f"annotations/{name}"


def test_reads_exactly_what_the_file_says(tmp_path):
    path = _write(tmp_path, _content())
    box_set = read_coco(tmp_path, path)
    assert box_set.labels == ("person", "zebra")  # In the order of their ids.
    first, second = box_set.records
    assert (first.path.name, first.height, first.width) == ("a.jpg", 48, 64)
    assert (second.height, second.width) == (0, 0)
    np.testing.assert_array_equal(first.boxes, np.float32([[0.5, 0, 10.5, 20]]))
    np.testing.assert_array_equal(second.boxes, np.float32([[1, 2, 4, 6]]))
    assert (first.labels.tolist(), second.labels.tolist()) == ([0], [1])
    assert (first.crowd.tolist(), second.crowd.tolist()) == ([False], [True])
    assert (first.lines, second.lines) == ((1,), (0,))
    assert str(second.problem(0, "bad.", "empty_box")) == f"{tmp_path / path}: annotations[0]: bad."


def test_given_labels_set_order_and_choice(tmp_path):
    path = _write(tmp_path, _content())
    assert read_coco(tmp_path, path, labels=["zebra", "person"]).records[0].labels.tolist() == [1]
    only = read_coco(tmp_path, path, labels=["zebra"])
    assert [str(problem) for problem in only.problems] == [
        (
            f"{tmp_path / path}: annotations[1]: category_id must name a known category. "
            "Received 7. Valid: 90."
        )
    ]


@pytest.mark.parametrize("folder", ["train2017", "images/train2017", "images", "JPEGImages", "."])
def test_finds_the_usual_picture_folders(tmp_path, folder):
    path = _write(tmp_path, _content())
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / folder / "a.jpg").touch()
    assert read_coco(tmp_path, path).records[0].path == tmp_path / folder / "a.jpg"


def test_a_given_picture_folder_must_exist(tmp_path):
    path = _write(tmp_path, _content())
    with pytest.raises(DataError, match=r"`images` must be a folder in .* Received 'pics'"):
        read_coco(tmp_path, path, images="pics")
    (tmp_path / "pics").mkdir()
    assert read_coco(tmp_path, path, images="pics").records[0].path == tmp_path / "pics/a.jpg"


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (3, "an annotation must be an object. Received 3."),
        ({"image_id": 8}, "image_id must name an image of the file. Received 8."),
        ({"image_id": []}, "image_id must name an image of the file. Received []."),
        (
            {"image_id": 5, "category_id": 1},
            "must name a known category. Received 1. Valid: 7, 90.",
        ),
        ({"image_id": 5, "category_id": 7}, "bbox must be four numbers x, y, width, height."),
        (
            {"image_id": 5, "category_id": 7, "bbox": [1, 2, "3", 4]},
            "Received [1, 2, '3', 4]. Correct or remove it.",
        ),
        (
            {"image_id": 5, "category_id": 7, "bbox": [10**30, 2, 3, 4]},
            "bbox must be four numbers",
        ),
    ],
)
def test_bad_annotations_are_noted(tmp_path, annotation, message):
    content = _content()
    content["annotations"].append(annotation)
    path = _write(tmp_path, content)
    (problem,) = read_coco(tmp_path, path).problems
    assert str(problem).startswith(f"{tmp_path / path}: annotations[2]: ")
    assert message in str(problem)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ({"id": 9}, "an image must have an id and a file_name."),
        ({"file_name": "c.jpg"}, "an image must have an id. Received None."),
        ({"id": 5, "file_name": "c.jpg"}, "an id of its own. Received 5 again."),
    ],
)
def test_bad_images_are_noted(tmp_path, image, message):
    content = _content()
    content["images"].append(image)
    (problem,) = read_coco(tmp_path, _write(tmp_path, content)).problems
    assert "images[2]: " in str(problem)
    assert message in str(problem)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": None}, "without the list 'images'"),
        ({"categories": [{"id": 1}]}, "Every category must have an integer id and a name"),
        (
            {"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]},
            "Every category must have an id of its own",
        ),
        (
            {"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]},
            "Every category must have a name of its own",
        ),
        ({"categories": []}, "Every category must have a name of its own"),
    ],
)
def test_refuses_what_is_not_coco(tmp_path, change, message):
    path = _write(tmp_path, {**_content(), **change})
    with pytest.raises(DataError, match=message):
        read_coco(tmp_path, path)


def test_refuses_unknown_labels_and_unreadable_files(tmp_path):
    path = _write(tmp_path, _content())
    with pytest.raises(DataError, match=r"Received 'zebar'\. Nearest: 'zebra'\."):
        read_coco(tmp_path, path, labels=["zebar"])
    with pytest.raises(DataError, match="must be a readable file"):
        read_coco(tmp_path, "none.json")
    (tmp_path / "bad.json").write_text('{\n"images": [}')
    with pytest.raises(DataError, match=r"must be JSON\. Received '.*bad\.json': .*line 2"):
        read_coco(tmp_path, "bad.json")
    (tmp_path / "bad.json").write_bytes(b"\xff\xff")
    with pytest.raises(DataError, match=r"must be JSON\. Received '.*bad\.json'"):
        read_coco(tmp_path, "bad.json")


@pytest.mark.data
@pytest.mark.parametrize("name", ["det_bccd", "det_cards", "det_deeppcb", "face_mask853"])
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_agrees_with_voc_box_by_box(data_root, name, split):
    coco = read_coco(data_root / name, f"annotations_coco/instances_{split}.json")
    voc = read_voc(data_root / name, split)
    assert coco.labels == voc.labels
    assert coco.problems == voc.problems == ()
    by_path = {record.path: record for record in voc.records}
    assert by_path.keys() == {record.path for record in coco.records}
    for record in coco.records:
        twin = by_path[record.path]
        np.testing.assert_array_equal(record.boxes, twin.boxes)
        np.testing.assert_array_equal(record.labels, twin.labels)
        assert (record.height, record.width) == (twin.height, twin.width)


def test_outlines_are_read_where_asked_for(tmp_path):
    content = _content()
    content["annotations"][1]["segmentation"] = [[0, 0, 10, 0, 10, 20]]
    path = _write(tmp_path, content)
    assert all(record.outlines is None for record in read_coco(tmp_path, path).records)
    box_set = read_coco(tmp_path, path, masks=True)
    first, second = box_set.records
    assert (len(first.outlines), second.outlines) == (1, ())
    np.testing.assert_array_equal(first.outlines[0][0], np.float32([0, 0, 10, 0, 10, 20]))
    assert first.only(np.array([False])).outlines == ()
    (problem,) = box_set.problems
    assert "annotations[0]: segmentation must be polygons" in str(problem)
    assert len(second.boxes) == 0


def test_images_beside_their_annotations(tmp_path):
    for split in ("train", "valid"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "_annotations.coco.json").write_text(json.dumps(_content()))
        (tmp_path / split / "a.jpg").write_bytes(b"")
    found = read_coco(tmp_path, "valid/_annotations.coco.json")
    assert found.records[0].path == tmp_path / "valid" / "a.jpg"
