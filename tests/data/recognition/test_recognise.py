import pytest

from flyweight.config.data import DataConfig
from flyweight.data.loading import open_set
from flyweight.data.recognition.folder import read_folder
from flyweight.data.recognition.recognise import other_layout, recognise, recognise_below
from flyweight.errors import DataError

CLASSES = {f"{name}/{number}.jpg": None for name in ("cat", "dog") for number in range(2)}


def test_all_layouts_in_order(plant, voc_xml):
    root = plant(
        {
            "a.jpg": None,
            "a.xml": voc_xml("cat"),
            "a.json": '{"images": [], "annotations": [], "categories": []}',
        }
    )
    assert [found.format for found in recognise(read_folder(root))] == ["voc", "coco"]


def test_one_more_folder_around_the_set(plant):
    root = plant({f"flowers/{name}": None for name in CLASSES} | {"README.md": "x"})
    folder, found = recognise_below(read_folder(root))
    assert (folder.root, found[0].format) == (root / "flowers", "class_list")


def test_several_sets_are_named(plant, voc_xml):
    files = {
        f"{name}/{end}": text
        for name in ("one", "two")
        for end, text in (("a.jpg", None), ("a.xml", voc_xml("cat")))
    }
    with pytest.raises(DataError, match=r"holds 2: one, two\. Give one of them"):
        recognise_below(read_folder(plant(files)))


def test_splits_are_no_sets(plant, voc_xml):
    files = {
        f"{name}/{end}": text
        for name in ("train", "test")
        for end, text in (("a.jpg", None), ("a.xml", voc_xml("cat")))
    }
    assert recognise_below(read_folder(plant(files)))[1][0].format == "voc"


def test_nothing_is_recognised(plant):
    with pytest.raises(DataError, match=r"with 1 images in 2 files\. docs/data\.md"):
        recognise_below(read_folder(plant({"a.jpg": None, "b.txt": "hello"})))


COCO = {
    "images/a.jpg": None,
    "annotations/instances_train.json": '{"images": [], "annotations": []}',
}


def test_a_wrong_format_names_the_right_one(plant):
    def found(root, named, source="train"):
        return other_layout(DataConfig(format=named, root=str(root)), source)

    root = plant(COCO)
    assert found(root, "voc") == "coco"
    assert found(root, "coco") is None
    # Folders of images support many layouts, so nothing is certain.
    assert found(plant(CLASSES, "classes"), "voc") is None
    assert found(root / "nowhere", "voc") is None
    face = "0--Parade/a.jpg\n1\n8 8 16 20\n"
    texts = {f"wider_face_split/wider_face_{split}_bbx_gt.txt": face for split in ("train", "val")}
    both = plant(COCO | texts, "both")
    source = "annotations/instances_train.json"
    assert found(both, "wider", source) == "coco"
    assert found(both, "wider") is None
    assert found(both, "voc", source) == "coco"


@pytest.mark.parametrize("name", ["voc", "yolo", "class_list", "masks", "imagefolder"])
def test_readers_of_another_layout_end_in_one_short_line(plant, name):
    config = DataConfig(format=name, root=str(plant(COCO)), train="train", labels=("a",))
    with pytest.raises(DataError, match="files have the layout coco") as caught:
        open_set(config, "train")
    assert len(str(caught.value)) < 500
