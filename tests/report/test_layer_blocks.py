from hypothesis import given
from hypothesis import strategies as st

from flyweight.report.layer_blocks import Block, blocks_of
from flyweight.report.rows import Width


def blocks(names: list[str]) -> tuple[Block, ...]:
    return blocks_of([Width(name=name, before=2, after=1) for name in names])


def shown(names: list[str]) -> dict[str, list[str]]:
    return {block.name: [layer.name for layer in block.layers] for block in blocks(names)}


def test_detector_heads_fall_into_their_blocks() -> None:
    parts = ("0.0", "0.1", "1.0", "1.1", "2", "tip")
    names = [f"yolo_block.{block}.{part}.conv.weight" for block in range(3) for part in parts]
    assert shown(names) == {f"yolo_block.{block}": list(parts) for block in range(3)}


def test_few_layers_stay_together_without_what_they_share() -> None:
    assert shown(["body.a.weight", "body.b.weight"]) == {"body": ["a", "b"]}
    assert shown(["conv.weight"]) == {"": ["conv"]}
    assert shown(["a.weight", "a.weight.weight"]) == {"": ["a", "a.weight"]}
    assert shown([]) == {}


def test_crumbs_are_not_split() -> None:
    names = [f"layer.{index}" for index in range(20)]
    assert shown(names) == {"layer": [str(index) for index in range(20)]}


def test_pairs_are_crumbs_too() -> None:
    names = [f"layer3.{block}.{conv}.weight" for block in range(8) for conv in ("conv1", "conv2")]
    assert list(shown(names)) == ["layer3"]


def test_stem_and_head_keep_their_places() -> None:
    names = [f"stage.{i}.{part}.weight" for i in range(5) for part in "abc"]
    found = blocks(["stem.conv.weight", *names, "head.weight"])
    assert [block.name for block in found] == ["stem", *(f"stage.{i}" for i in range(5)), ""]


PARTS = st.lists(st.sampled_from("abcd01"), min_size=1, max_size=5).map(".".join)


@given(st.lists(PARTS, unique=True, max_size=60))
def test_every_layer_is_shown_once_and_its_name_can_be_told(names: list[str]) -> None:
    found = blocks(names)
    widths = [layer.width.name for block in found for layer in block.layers]
    assert sorted(widths) == sorted(names)
    for block in found:
        assert len({layer.name for layer in block.layers}) == len(block.layers)
        for layer in block.layers:
            full = f"{block.name}.{layer.name}" if block.name else layer.name
            assert layer.name
            assert layer.width.name.startswith(full)
