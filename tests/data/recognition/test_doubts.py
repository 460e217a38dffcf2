"""Every reader is given every other layout: it must refuse it in one line that names the layout."""

import json
from itertools import product

import pytest

from flyweight.config.data import DataConfig
from flyweight.data.layouts.box_readers import READERS as BOX_READERS
from flyweight.data.loading import READERS, open_set
from flyweight.data.recognition.doubts import is_doubtful
from flyweight.errors import DataError

COCO = json.dumps(
    {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [8, 8, 16, 20]}],
        "categories": [{"id": 1, "name": "cat"}],
    }
)
FACE = "0--Parade/a.jpg\n1\n8 8 16 20 0 0 0 0 0 0\n"
SPLITS = ("train", "val")


def voc(xml):
    names = [f"{split}_{number}" for split in SPLITS for number in range(2)]
    return {
        "label_list.txt": "cat\n",
        **{f"JPEGImages/{name}.jpg": None for name in names},
        **{f"Annotations/{name}.xml": xml("cat") for name in names},
        **{f"ImageSets/Main/{split}.txt": f"{split}_0\n{split}_1\n" for split in SPLITS},
    }


def voc_lists(xml):
    lines = {split: f"images/{split}.jpg xmls/{split}.xml\n" for split in SPLITS}
    return {
        "label_list.txt": "cat\n",
        **{f"images/{split}.jpg": None for split in SPLITS},
        **{f"xmls/{split}.xml": xml("cat") for split in SPLITS},
        **{f"{split}.txt": text for split, text in lines.items()},
    }


def coco(_):
    files = {f"annotations/instances_{split}.json": COCO for split in SPLITS}
    return files | {f"images/{split}/a.jpg": None for split in SPLITS}


def coco_beside_images(_):
    files = {f"{split}/_annotations.coco.json": COCO for split in SPLITS}
    return files | {f"{split}/a.jpg": None for split in SPLITS}


def wider(_):
    files = {f"wider_face_split/wider_face_{split}_bbx_gt.txt": FACE for split in SPLITS}
    return files | {f"WIDER_{split}/images/0--Parade/a.jpg": None for split in SPLITS}


def yolo(_):
    rows = {f"labels/{split}/a.txt": "0 0.5 0.5 0.25 0.25\n" for split in SPLITS}
    images = {f"images/{split}/a.jpg": None for split in SPLITS}
    return {"data.yaml": "names: [cat]\ntrain: images/train\nval: images/val\n", **rows, **images}


def yolo_by_split(_):
    rows = {f"{split}/labels/a.txt": "0 0.5 0.5 0.25 0.25\n" for split in SPLITS}
    return {"classes.txt": "cat\n", **rows, **{f"{split}/images/a.jpg": None for split in SPLITS}}


def imagefolder(_):
    names = [f"{split}/{name}/a.jpg" for split in SPLITS for name in ("cat", "dog")]
    return dict.fromkeys(names)


def class_list(_):
    lists = {f"{split}.txt": f"images/{split}.jpg 0\n" for split in SPLITS}
    return {"labels.txt": "cat\n", **lists, **{f"images/{split}.jpg": None for split in SPLITS}}


def masks(_):
    maps = {f"masks/{split}/a.png": [0, 1] for split in SPLITS}
    return {
        "labels.txt": "no\ncat\n",
        **maps,
        **{f"images/{split}/a.jpg": None for split in SPLITS},
    }


def masks_by_split(_):
    maps = {f"{split}/masks/a.png": [0, 1] for split in SPLITS}
    return {
        "labels.txt": "no\ncat\n",
        **maps,
        **{f"{split}/images/a.jpg": None for split in SPLITS},
    }


def masks_listed(_):
    lists = {f"{split}.txt": f"images/{split}.jpg maps/{split}.png\n" for split in SPLITS}
    maps = {f"maps/{split}.png": [0, 1] for split in SPLITS}
    images = {f"images/{split}.jpg": None for split in SPLITS}
    return {"labels.txt": "no\ncat\n", **lists, **maps, **images}


def cityscapes(_):
    maps = {f"gtFine/{split}/ulm/a_gtFine_labelIds.png": [7, 8] for split in SPLITS}
    return maps | {f"leftImg8bit/{split}/ulm/a_leftImg8bit.png": None for split in SPLITS}


# The layout, how a set of it is made, and what names the training split in its own config.
SETS = [
    ("voc", voc, "train"),
    ("voc", voc_lists, "train.txt"),
    ("coco", coco, "annotations/instances_train.json"),
    ("coco", coco_beside_images, "train/_annotations.coco.json"),
    ("wider", wider, "train"),
    ("yolo", yolo, "train"),
    ("yolo", yolo_by_split, "train"),
    ("imagefolder", imagefolder, "train"),
    ("class_list", class_list, "train"),
    ("masks", masks, "train"),
    ("masks", masks_by_split, "train"),
    ("masks", masks_listed, "train"),
    ("cityscapes", cityscapes, "train"),
]
WAYS = ("train", "train.txt", "images/train", "train/images", ".")
FORMATS = [name for name in READERS if not name.startswith("digits")]
KNOWN = {*BOX_READERS, "imagefolder", "class_list", "masks", "cityscapes"}


@pytest.mark.parametrize(("layout", "make", "split"), SETS, ids=[made[1].__name__ for made in SETS])
def test_every_reader_refuses_every_other_layout_and_names_it(plant, voc_xml, layout, make, split):
    assert set(FORMATS) == KNOWN
    root = str(plant(make(voc_xml)))
    assert len(open_set(DataConfig(format=layout, root=root, train=split), "train"))
    wrong = []
    others = [name for name in FORMATS if name != layout]
    for name, way, labels in product(others, {*WAYS, split}, (None, ("face",))):
        config = DataConfig(format=name, root=root, train=way, labels=labels)
        try:
            found = f"took {len(open_set(config, 'train'))} images"
        except DataError as error:
            found = str(error)
        if f"files have the layout {layout}." not in found or len(found) > 600:
            wrong.append((name, way, labels, found[:150]))
    assert not wrong, "\n".join(map(str, wrong))


def test_a_set_that_lacks_its_files_is_no_other_layout(plant, voc_xml):
    files = {name: text for name, text in voc(voc_xml).items() if not name.startswith("JPEG")}
    found = open_set(DataConfig(format="voc", root=str(plant(files))), "train")
    assert len(found) == 2
    assert is_doubtful(found)
    whole = open_set(DataConfig(format="voc", root=str(plant(voc(voc_xml), "whole"))), "train")
    assert not is_doubtful(whole)
