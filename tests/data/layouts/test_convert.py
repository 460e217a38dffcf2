"""Every layout written and read back by our own readers, for sets of any shape."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyweight.data.check import check
from flyweight.data.images import image_of
from flyweight.data.layouts.coco import read_coco
from flyweight.data.layouts.convert import WRITERS, convert
from flyweight.data.layouts.voc import read_voc
from flyweight.data.layouts.wider import read_wider
from flyweight.data.layouts.yolo_txt import read_yolo
from flyweight.data.records import BoxRecord, BoxSet, as_boxes
from flyweight.errors import ConfigError, DataError

READERS = {
    "voc": read_voc,
    "coco": lambda root, split: read_coco(root, f"annotations/instances_{split}.json"),
    "wider": read_wider,
    "yolo": read_yolo,
}
NAMES = st.text("abcXYZ äß<&>'\"-_#:1", min_size=1, max_size=8).map(str.strip).filter(bool)


@st.composite
def box_sets(draw):
    labels = tuple(draw(st.lists(NAMES, min_size=1, max_size=4, unique=True)))
    records = []
    sizes = draw(st.lists(st.tuples(st.integers(8, 40), st.integers(8, 40)), max_size=3))
    for height, width in sizes:
        rows = []
        for _ in range(draw(st.integers(0, 4))):
            # Sixteenths of a pixel, which every number format holds.
            x, y = (draw(st.integers(0, 16 * (side - 2))) for side in (width, height))
            right = draw(st.integers(x + 16, 16 * width))
            bottom = draw(st.integers(y + 16, 16 * height))
            rows.append((x / 16, y / 16, right / 16, bottom / 16))
        count = len(rows)
        flags = draw(st.lists(st.booleans(), min_size=2 * count, max_size=2 * count))
        classes = draw(st.lists(st.integers(0, len(labels) - 1), min_size=count, max_size=count))
        records.append(
            BoxRecord(
                path=None,
                height=height,
                width=width,
                boxes=as_boxes(rows),
                labels=np.array(classes, dtype=np.int64),
                difficult=np.array(flags[:count], dtype=bool),
                crowd=np.array(flags[count:], dtype=bool),
                lines=tuple(range(count)),
                annotation=Path("made"),
            )
        )

    def picture(index):
        height, width = sizes[index]
        seeded = np.random.default_rng(index)
        return seeded.integers(0, 256, (height, width, 3), dtype=np.uint8)

    return BoxSet("made/train", labels, tuple(records), picture)


def expected_of(record, layout):
    """The boxes, labels and flags that a layout can keep."""
    difficult, crowd = record.difficult, record.crowd
    keep = ~(difficult | crowd) if layout == "yolo" else np.ones(len(difficult), dtype=bool)
    if layout in ("voc", "wider"):
        difficult, crowd = difficult | crowd, np.zeros_like(crowd)
    labels = np.zeros_like(record.labels) if layout == "wider" else record.labels
    return record.boxes[keep], labels[keep], difficult[keep], crowd[keep]


@pytest.mark.parametrize("layout", WRITERS)
@given(made=box_sets())
@settings(max_examples=10)
def test_what_is_written_reads_back(tmp_path_factory, layout, made):
    folder = tmp_path_factory.mktemp("set")
    done = convert(made, folder, layout, split="train")
    read = READERS[layout](folder, "train")
    assert read.problems == ()
    assert read.labels == (("face",) if layout == "wider" else made.labels)
    # Images come back in their order, but not in that of WIDER's events, which are one here.
    assert len(read) == len(made) == done.images
    assert sum(len(record.boxes) for record in read.records) == done.boxes
    for index, (found, record) in enumerate(zip(read.records, made.records, strict=True)):
        boxes, labels, difficult, crowd = expected_of(record, layout)
        # YOLO's shares are written to eight decimals.
        np.testing.assert_allclose(found.boxes, boxes, atol=1e-4 if layout == "yolo" else 2e-5)
        np.testing.assert_array_equal(found.labels, labels)
        np.testing.assert_array_equal(found.difficult, difficult)
        np.testing.assert_array_equal(found.crowd, crowd)
        assert bool((image_of(read, index) == image_of(made, index)).all())


def test_all_the_way_round(tmp_path, tiny_set):
    """From layout to layout and back, with the flags and names that each can keep."""
    made = tiny_set()
    last = made
    for number, layout in enumerate(("voc", "coco", "yolo", "coco", "voc", "yolo", "voc")):
        convert(last, tmp_path / str(number), layout, split="val")
        last = READERS[layout](tmp_path / str(number), "val")
        assert check(last, decode=True) == ()
    for found, record in zip(last.records, made.records, strict=True):
        np.testing.assert_allclose(found.boxes, record.boxes, atol=1e-3)
        np.testing.assert_array_equal(found.labels, record.labels)


def test_what_is_lost_is_named(tmp_path, tiny_set):
    made = tiny_set(difficult={(0, 0)}, crowd={(1, 1)})
    lost = {layout: convert(made, tmp_path / layout, layout).lost for layout in WRITERS}
    assert lost["coco"] == ()
    assert lost["voc"] == ("1 crowd region written as difficult: VOC knows no crowds",)
    assert lost["yolo"] == (
        "1 difficult object left out: YOLO's texts have no flags",
        "1 crowd region left out: YOLO's texts have no flags",
    )
    assert lost["wider"] == (
        "1 crowd region written as invalid: WIDER's texts know no crowds",
        "2 class names became faces: WIDER's texts have one class",
    )


def test_refuses_an_unknown_layout(tmp_path, tiny_set):
    with pytest.raises(ConfigError, match=r"Received 'cocoa'\. Nearest: 'coco'"):
        convert(tiny_set(), tmp_path, "cocoa")


@pytest.mark.parametrize("layout", ["voc", "yolo"])
def test_splits_share_a_folder_and_its_classes(tmp_path, tiny_set, layout):
    made = tiny_set()
    for split in ("train", "val"):
        convert(made, tmp_path, layout, split=split)
    for split in ("train", "val"):
        assert len(READERS[layout](tmp_path, split)) == 2
    other = BoxSet("x", ("cat",), (), made.image)
    with pytest.raises(DataError, match="must have the same classes"):
        convert(other, tmp_path, layout, split="test")


@pytest.mark.data
@pytest.mark.parametrize("layout", WRITERS)
def test_a_real_set_keeps_its_boxes_and_its_bytes(tmp_path, data_root, layout):
    cells = read_voc(data_root / "det_bccd", "val")
    few = BoxSet(cells.name, cells.labels, cells.records[:6])
    convert(few, tmp_path, layout)
    read = READERS[layout](tmp_path, "val")
    assert check(read) == ()
    found = {record.path.name: record for record in read.records}
    for record in few.records:
        twin = found[record.path.name]
        assert twin.path.read_bytes() == record.path.read_bytes()
        np.testing.assert_allclose(twin.boxes, record.boxes, atol=1e-3)
