from flyweight.data.recognition.folder import read_folder
from flyweight.data.recognition.other_layouts import cityscapes, class_list, imagefolder, masks


def test_cityscapes(plant):
    names = [
        f"{kind}/{split}/a/x.png"
        for kind in ("leftImg8bit", "gtFine")
        for split in ("train", "val")
    ]
    assert cityscapes(read_folder(plant(dict.fromkeys(names)))).format == "cityscapes"
    assert cityscapes(read_folder(plant(dict.fromkeys(names[:3]), "b"))) is None


def test_masks_by_list(plant):
    root = plant({"i/a.jpg": None, "m/a.png": [0, 1], "train.txt": "i/a.jpg m/a.png\n"})
    assert masks(read_folder(root)).settings == {"format": "masks", "train": "train.txt"}


def test_masks_in_folders_of_splits(plant):
    files = {
        f"{split}/{kind}/a.png": None for split in ("train", "val") for kind in ("images", "masks")
    }
    assert masks(read_folder(plant(files))).settings == {
        "format": "masks",
        "train": "train",
        "val": "val",
    }


def test_masks_by_names(plant):
    found = masks(read_folder(plant({"img/a b.jpg": None, "seg/a b_mask.png": [0, 255]})))
    assert found.listed == {"all": ("img/a b.jpg\tseg/a b_mask.png",)}
    found = masks(
        read_folder(plant({"x/a.jpg": None, "x/a_mask.png": [0, 255], "x/c.jpg": None}, "b"))
    )
    assert found.listed == {"all": ("x/a.jpg x/a_mask.png",)}
    assert masks(read_folder(plant({"x/a.jpg": None, "y/a.jpg": None}, "c"))) is None


def test_class_list(plant):
    files = {"i/a b.jpg": None, "train_list.txt": "i/a b.jpg 0\n", "val_list.txt": "i/a b.jpg 1\n"}
    found = class_list(read_folder(plant(files)))
    assert found.settings["labels"] == ("class_0", "class_1")
    named = class_list(read_folder(plant({**files, "classes.txt": "0 n1 cat\n1 n2 dog\n"}, "b")))
    assert named.settings["labels"] == ("cat", "dog")
    words = {"i/a.jpg": None, "train.txt": "i/a.jpg dog\ni/a.jpg cat\n"}
    assert class_list(read_folder(plant(words, "c"))).settings["labels"] == ("cat", "dog")
    listed = class_list(read_folder(plant({**files, "labels.txt": "x\ny\n"}, "d")))
    assert "labels" not in listed.settings


def test_imagefolder_with_splits(plant):
    files = {
        f"{split}/{name}/a.jpg": None for split in ("train", "test") for name in ("cat", "dog")
    }
    found = imagefolder(read_folder(plant(files)))
    assert found.settings == {"format": "imagefolder", "train": "train", "val": "test"}


def test_imagefolder_without_splits(plant):
    found = imagefolder(read_folder(plant({"cat/a.jpg": None, "big dog/b/c.jpg": None})))
    assert found.settings == {"format": "class_list", "labels": ("big dog", "cat")}
    assert found.listed == {"all": ("big dog/b/c.jpg 0", "cat/a.jpg cat")}


def test_folders_of_something_else(plant):
    assert imagefolder(read_folder(plant({"images/a.jpg": None, "masks/b.png": None}))) is None
    assert (
        imagefolder(read_folder(plant({"a.jpg": None, "b.jpg": None, "c/d.jpg": None}, "b")))
        is None
    )


def test_masks_in_folders_named_after_their_images(plant):
    names = [f"{split}{end}/{split}.png" for split in ("train", "val") for end in ("", "annot")]
    found = masks(read_folder(plant(dict.fromkeys(names))))
    assert found.listed == {
        "train": ("train/train.png trainannot/train.png",),
        "val": ("val/val.png valannot/val.png",),
    }


def test_splits_are_no_classes(plant):
    files = {f"{split}/images/a.jpg": None for split in ("train", "valid")}
    texts = {f"{split}/labels/a.txt": "0 0.5 0.5 0.2 0.2" for split in ("train", "valid")}
    folder = read_folder(plant({**files, **texts}))
    assert masks(folder) is None
    assert imagefolder(folder) is None
