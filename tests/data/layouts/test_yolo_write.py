import yaml

from flyweight.data.layouts.yolo_write import write_yolo


def test_the_files(tmp_path, tiny_set):
    card = write_yolo(tiny_set(), tmp_path)
    assert card == tmp_path / "data.yaml"
    assert yaml.safe_load(card.read_text()) == {
        "names": {0: "cat", 1: "dog"},
        "train": "images/train",
    }
    # Centre 6, 7 and sides 10, 10 of 32x24.
    first = (tmp_path / "labels/train/train_00000.txt").read_text()
    assert first == "0 0.18750000 0.29166667 0.31250000 0.41666667\n"
    assert (tmp_path / "images/train/train_00001.png").is_file()


def test_flagged_objects_stay_out_and_a_picture_may_have_none(tmp_path, tiny_set):
    write_yolo(tiny_set(difficult={(0, 0)}, crowd={(1, 0)}), tmp_path)
    assert (tmp_path / "labels/train/train_00000.txt").read_text() == ""
    assert len((tmp_path / "labels/train/train_00001.txt").read_text().splitlines()) == 1


def test_splits_join_one_card(tmp_path, tiny_set):
    for split in ("train", "val"):
        card = write_yolo(tiny_set(), tmp_path, split=split)
    assert yaml.safe_load(card.read_text())["val"] == "images/val"
