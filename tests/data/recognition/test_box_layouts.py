import json

from flyweight.data.recognition.box_layouts import coco, voc, wider, yolo
from flyweight.data.recognition.folder import read_folder

COCO = json.dumps({"images": [], "annotations": [], "categories": []})


def test_voc_with_lists(plant, voc_xml):
    root = plant(
        {
            "JPEGImages/a.jpg": None,
            "Annotations/a.xml": voc_xml("cat"),
            "ImageSets/Main/train.txt": "a\n",
            "ImageSets/Main/val.txt": "a\n",
            "ImageSets/Main/cat_train.txt": "a 1\n",
            "label_list.txt": "cat\n",
        }
    )
    assert voc(read_folder(root)).settings == {"format": "voc", "train": "train", "val": "val"}


def test_voc_with_lists_of_pairs_and_other_labels(plant, voc_xml):
    pair = "JPEGImages/a.jpg Annotations/a.xml\n"
    root = plant(
        {
            "JPEGImages/a.jpg": None,
            "Annotations/a.xml": voc_xml("cat"),
            "train_list.txt": pair,
            "val_list.txt": pair,
            "labels.txt": "cat\ndog\n",
        }
    )
    assert voc(read_folder(root)).settings == {
        "format": "voc",
        "labels": ("cat", "dog"),
        "train": "train_list.txt",
        "val": "val_list.txt",
    }


def test_voc_in_folders_of_splits(plant, voc_xml):
    root = plant(
        {
            "train/images/a.png": None,
            "train/annotations/a.xml": voc_xml("dog"),
            "test/images/a.png": None,
            "test/annotations/a.xml": voc_xml("cat"),
        }
    )
    found = voc(read_folder(root))
    assert found.settings == {"format": "voc", "labels": ("cat", "dog")}
    assert found.listed == {
        "train": ("train/images/a.png train/annotations/a.xml",),
        "test": ("test/images/a.png test/annotations/a.xml",),
    }


def test_xml_of_something_else_is_no_voc(plant):
    assert voc(read_folder(plant({"a.xml": "<svg/>", "a.png": None}))) is None


def test_coco_by_name_or_by_folder(plant):
    names = ("annotations/instances_train2017.json", "annotations/instances_val2017.json")
    root = plant({names[0]: COCO, names[1]: COCO, "annotations/captions_val2017.json": COCO})
    assert coco(read_folder(root)).settings == {
        "format": "coco",
        "train": names[0],
        "val": names[1],
    }
    exported = plant(
        {"train/_annotations.coco.json": COCO, "valid/_annotations.coco.json": COCO}, "b"
    )
    found = coco(read_folder(exported))
    assert found.settings["val"] == "valid/_annotations.coco.json"
    assert coco(read_folder(plant({"all.json": COCO}, "c"))).settings == {
        "format": "coco",
        "train": "all.json",
    }
    assert coco(read_folder(plant({"package.json": '{"name": 1}', "x.json": "["}, "d"))) is None


def test_wider(plant):
    root = plant(
        {
            "wider_face_split/wider_face_train_bbx_gt.txt": "",
            "wider_face_split/wider_face_val_bbx_gt.txt": "",
            "WIDER_train/images/0--Parade/a.jpg": None,
        }
    )
    assert wider(read_folder(root)).settings == {"format": "wider", "train": "train", "val": "val"}


def test_yolo_in_folders(plant):
    row = "0 0.5 0.5 0.2 0.2\n"
    files = {
        f"{kind}/{split}/a.{end}": text
        for split in ("train", "val")
        for kind, end, text in (("images", "jpg", None), ("labels", "txt", row))
    }
    root = plant({**files, "data.yaml": "names: [cat]\n"})
    assert yolo(read_folder(root)).settings == {
        "format": "yolo",
        "train": "images/train",
        "val": "images/val",
    }


def test_yolo_without_names_or_splits(plant):
    root = plant({"a.jpg": None, "a.txt": "2 0.5 0.5 0.2 0.2\n", "b.jpg": None, "b.txt": ""})
    found = yolo(read_folder(root))
    assert found.settings["labels"] == ("class_0", "class_1", "class_2")
    assert found.listed == {"all": ("a.jpg", "b.jpg")}
    assert "no class names" in found.notes[0]


def test_yolo_with_a_card_of_another_name(plant):
    row = "0 0.5 0.5 0.2 0.2\n"
    root = plant(
        {"images/a.jpg": None, "labels/a.txt": row, "my.yaml": "names:\n  0: cat\n  1: 'a dog'\n"}
    )
    assert yolo(read_folder(root)).settings["labels"] == ("cat", "a dog")


def test_texts_beside_images_are_no_boxes(plant):
    assert yolo(read_folder(plant({"a.jpg": None, "a.txt": "a caption of it\n"}))) is None
