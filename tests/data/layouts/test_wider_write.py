from PIL import Image

from flyweight.data.layouts.wider import read_wider
from flyweight.data.layouts.wider_write import write_wider


def test_the_text(tmp_path, tiny_set):
    boxes = [[[1, 2, 11, 12.5]], [], [[3, 4, 30, 20], [5, 6, 20, 14]]]
    made = tiny_set(boxes=boxes, difficult={(2, 0)}, crowd={(2, 1)})
    text = write_wider(made, tmp_path)
    assert text == tmp_path / "wider_face_split/wider_face_train_bbx_gt.txt"
    assert text.read_text() == (
        "0--train/train_00000.png\n1\n1 2 10 10.5 0 0 0 0 0 0\n"
        "0--train/train_00001.png\n0\n0 0 0 0 0 0 0 0 0 0\n"
        "0--train/train_00002.png\n2\n3 4 27 16 0 0 0 1 0 0\n5 6 15 8 0 0 0 1 0 0\n"
    )


def test_events_and_names_stay(tmp_path, tiny_set):
    paths = [tmp_path / "from" / name for name in ("7--Cheering/a.jpg", "0--Parade/a.jpg")]
    for value, path in enumerate(paths):
        path.parent.mkdir(parents=True)
        Image.new("RGB", (32, 24), (value, 0, 0)).save(path)
    write_wider(tiny_set(paths=paths), tmp_path / "to", split="val")
    faces = read_wider(tmp_path / "to", "val")
    assert [f"{r.path.parent.name}/{r.path.name}" for r in faces.records] == [
        "7--Cheering/a.jpg",
        "0--Parade/a.jpg",
    ]
    assert [r.path.read_bytes() for r in faces.records] == [p.read_bytes() for p in paths]
