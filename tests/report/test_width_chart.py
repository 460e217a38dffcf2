import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.report.rows import Width
from flyweight.report.width_chart import HEIGHT, WIDTH, width_chart

PARTS = st.lists(st.sampled_from(["a", "b", "0", "long_name"]), min_size=1, max_size=4)
WIDTHS = st.lists(
    st.tuples(PARTS.map(".".join), st.integers(1, 5000), st.floats(0, 1)),
    min_size=1,
    max_size=250,
    unique_by=lambda layer: layer[0],
)


def layers(names: list[str], before: int = 8, after: int = 4) -> list[Width]:
    return [Width(name=name, before=before, after=after) for name in names]


def labels(names: list[str]) -> list[str]:
    drawn = ElementTree.fromstring(width_chart(layers(names)))
    return [str(text.text) for text in drawn.findall("text") if text.get("text-anchor") is None]


@given(WIDTHS)
def test_every_layer_is_drawn_in_order_within_the_picture(
    found: list[tuple[str, int, float]],
) -> None:
    widths = [
        Width(name=name, before=before, after=max(1, round(share * before)))
        for name, before, share in found
    ]
    drawn = ElementTree.fromstring(width_chart(widths))
    bars = drawn.findall("g")
    assert len(bars) == len(widths)
    lefts = []
    for bar, width in zip(bars, widths, strict=True):
        assert str(bar.findtext("title")).startswith(f"{width.name}: {width.before:,} ")
        over, before, after = (rect.attrib for rect in bar.findall("rect"))
        share = float(after["height"]) / max(0.01, float(before["height"]))
        assert share == pytest.approx(width.after / width.before, abs=0.2) or width.before < 50
        lefts.append(float(over["x"]))
        assert 0 <= lefts[-1] <= float(over["x"]) + float(over["width"]) <= WIDTH + 0.1
        assert 0 <= float(before["y"]) <= HEIGHT
    assert all(one < other for one, other in pairwise(lefts))


def test_parts_are_named_as_deep_as_there_is_room() -> None:
    resnet = [
        "conv1.weight",
        *(f"layer{stage}.{i}.conv.weight" for stage in (1, 2) for i in range(9)),
    ]
    assert labels(resnet) == ["layer1", "layer2"]
    parts = ("0.0", "0.1", "1.0", "1.1", "2", "tip")
    yolo = [f"yolo_block.{i}.{part}.conv.weight" for i in range(3) for part in parts]
    heads = [f"output.{i}.weight" for i in range(3)]
    mixed = [name for i in range(3) for name in (*yolo[6 * i : 6 * i + 6], heads[i])]
    assert labels(mixed) == ["yolo_block.0", "yolo_block.1", "yolo_block.2"]


def test_what_all_names_share_is_not_said() -> None:
    names = [f"features.block{i // 20}.{i}.weight" for i in range(40)]
    assert labels(names) == ["block0", "block1"]
    assert labels(["long_name.weight", "other_name.weight"]) == []
    assert labels(["a.weight"]) == ["a"]


def test_a_bar_says_what_stays() -> None:
    drawn = width_chart(layers(["<conv>.weight"], before=2048, after=512))
    assert "&lt;conv&gt;.weight: 2,048 → 512 (25 %)" in drawn
    assert 'aria-label="Channels of 1 layer in their order, before and after"' in drawn
