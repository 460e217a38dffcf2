import pytest
from PIL import Image

from flyweight.cli.convert_data import LAYOUTS, split_name
from flyweight.data.layouts.coco import read_coco
from flyweight.data.layouts.convert import WRITERS
from flyweight.workspace import Workspace

FACES = """0--Parade/a.png
2
1 2 10 10 0 0 0 0 0 0
1 2 0 10 0 0 0 0 0 0
0--Parade/b.png
1
3 4 10 12 0 0 0 1 0 0
"""


@pytest.fixture
def faces(tmp_path):
    root = tmp_path / "faces"
    (root / "wider_face_split").mkdir(parents=True)
    for split in ("train", "val"):
        (root / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt").write_text(FACES)
        for name in "ab":
            path = root / f"WIDER_{split}/images/0--Parade/{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 24)).save(path)
    return root


def test_both_splits_are_written_and_losses_named(flyweight, faces, tmp_path):
    bad = flyweight("convert-data", faces, "--from", "wider", "--to", "coco").mistake
    assert "Received 1 problem in 1 file" in bad
    assert "wider_face_train_bbx_gt.txt:4: object 2: a box must have width" in bad
    wish = ("convert-data", faces, "--from", "wider", "--to", "yolo", "--leave-out", "--json")
    answer = flyweight(*wish, "--output-dir", "out", "--image-files", "link")
    assert answer.json["val"]["pictures"] == 2
    assert answer.json["val"]["boxes"] == 1
    assert answer.json["val"]["written"] == "out/data.yaml"
    first, second = answer.json["train"]["notes"]
    assert first.startswith("left out of faces/train: 1 problem, first: ")
    assert second == "1 difficult object left out: YOLO's texts have no flags"
    assert "train: 1 difficult object left out" in answer.err
    assert (tmp_path / "out/images/train/a.png").is_symlink()
    assert (tmp_path / "out/labels/val/b.txt").read_text() == ""
    assert "width and height above 0" in (tmp_path / "out/data_problems.txt").read_text()


def test_the_split_test_is_not_dropped(flyweight, faces, tmp_path):
    text, images = "wider_face_split/wider_face_{0}_bbx_gt.txt", "WIDER_{0}"
    (faces / text.format("test")).write_text("0--Parade/a.png\n1\n1 2 9 9 0 0 0 0 0 0\n")
    (faces / images.format("test")).symlink_to(faces / images.format("val"))
    wish = ("convert-data", faces, "--from", "wider", "--to", "voc", "--leave-out", "--json")
    assert list(flyweight(*wish, "--output-dir", "out").json) == ["train", "val", "test"]
    assert (tmp_path / "out/ImageSets/Main/test.txt").read_text() == "a\n"


def test_a_split_and_names_can_be_given(flyweight, faces, tmp_path):
    text = "wider_face_split/wider_face_val_bbx_gt.txt"
    answer = flyweight(
        *("convert-data", faces, "--from", "wider", "--to", "coco", "--split", text),
        *("--labels", "head", "--images", "WIDER_val/images", "--output-dir", "out"),
        "--leave-out",
    )
    assert answer.status == 0
    assert answer.out.splitlines()[:2] == ["split  images  boxes", "val         2      2"]
    heads = read_coco(tmp_path / "out", "annotations/instances_val.json")
    assert heads.labels == ("head",)
    assert heads.records[1].difficult.tolist() == [True]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--from", "wide", "--to", "coco"), "--from must be one of .* Nearest: 'wider'"),
        (("--from", "wider", "--to", "xml"), "--to must be one of"),
        (("--from", "wider", "--to", "coco", "--pictures", "move"), "--image-files must be one of"),
        (("--from", "wider", "--to", "coco", "--output-dir", "faces"), "into another folder"),
        (("--from", "wider", "--to", "coco", "--labels", "a,a"), "must name every class once"),
        (("--from", "wider", "--to", "coco", "--split", "tset"), "Received 'tset'"),
        (("--from", "coco", "--to", "voc"), "annotations/instances_train.json"),
    ],
)
def test_mistakes_are_one_line(flyweight, faces, arguments, message):
    import re

    assert re.search(message, flyweight("convert-data", faces, *arguments).mistake)


def test_refuses_a_missing_folder(flyweight):
    mistake = flyweight("convert-data", "none", "--from", "voc", "--to", "coco").mistake
    assert "A set must be a folder" in mistake


def test_the_layouts_are_those_that_can_be_written():
    assert set(LAYOUTS) == set(WRITERS)
    assert split_name("images/val") == "val"


def test_one_conversion_at_a_time_writes_a_folder(flyweight, faces, tmp_path):
    with Workspace(tmp_path / "made").locked():
        answer = flyweight(
            *("convert-data", faces, "--from", "wider", "--to", "voc", "--output-dir", "made")
        )
    assert "Only one run at a time can work in a folder" in answer.mistake
