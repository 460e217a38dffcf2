from functools import partial

from PIL import Image

from flyweight.pipeline.drawn_images import draw_file
from flyweight.tasks.drawing.boxes import draw_boxes
from flyweight.tasks.drawing.colours import class_colour
from flyweight.tasks.drawing.tags import readable, with_tags


def test_lines_stand_under_each_other_in_their_colours():
    drawn = with_tags(Image.new("L", (120, 80)), [("one", 0), ("two", 1)])
    assert drawn.mode == "RGB"
    rows = {
        label: [y for y in range(80) for x in range(120) if drawn.getpixel((x, y)) == colour]
        for label, colour in ((0, class_colour(0)), (1, class_colour(1)))
    }
    assert max(rows[0]) < min(rows[1])


def test_what_does_not_fit_is_left_out():
    few = with_tags(Image.new("RGB", (60, 30)), [("a", index) for index in range(9)])
    assert not any(few.getpixel((x, 29)) == class_colour(8) for x in range(60))
    plain = Image.new("RGB", (40, 40), "white")
    assert with_tags(plain, []).tobytes() == plain.tobytes()


def test_a_file(tmp_path):
    Image.new("RGB", (50, 40)).save(tmp_path / "a.png")
    draw = partial(with_tags, lines=[("cat", 2)])
    draw_file(tmp_path / "a.png", tmp_path / "b.png", draw)
    with Image.open(tmp_path / "b.png") as drawn:
        assert class_colour(2) in {colour for _, colour in drawn.getcolors(9999)}


def test_labels_in_any_script_are_readable_or_numbered(make_prediction):
    labels = ["cat", "Straßenbahn", "собака", "飞机", "\U0010fffe", "two words", ""]
    texts = [text for text, _ in readable(labels, 14)]
    assert texts[:2] == labels[:2]
    assert texts[4] == "#4"
    assert texts[5] == "two words"
    assert all(
        text in (label, f"#{i}") for i, (text, label) in enumerate(zip(texts, labels, strict=True))
    )
    boxes = [(10, 20 * i, 90, 20 * i + 15) for i in range(len(labels))]
    prediction = make_prediction(boxes, [0.5] * len(labels), range(len(labels)))
    draw_boxes(Image.new("RGB", (100, 150)), prediction, labels)
