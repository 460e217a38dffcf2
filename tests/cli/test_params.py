import re
from pathlib import Path

SMALL = ("-o", "width=0.1", "input_size=64")


def test_params(flyweight):
    command = ("params", "-c", "demo_digits", *SMALL)
    out = flyweight(*command).out
    assert "      48  prunable  yolo_block.0.0.0.conv.weight\n" in out
    assert "because it is an output of the model" in out
    assert "… and " in out
    assert max(map(len, out.splitlines())) <= 80
    whole = flyweight(*command, "--all").out
    assert "… and " not in whole
    found = flyweight(*command, "--json").json
    assert whole.count(" axis ") == sum(len(group["members"]) for group in found["groups"].values())
    group = found["groups"]["yolo_block.0.0.0.conv.weight"]
    assert (group["channels"], group["prunable"], group["reason"]) == (48, True, None)
    assert (group["exact"], group["mixes"]) == (True, [])
    assert ["yolo_block.0.0.0.conv.weight", 0, "produces"] in group["members"]
    assert found["parameters"]["yolo_block.0.0.0.conv.weight"] == [48, 104, 1, 1]
    frozen = [group for group in found["groups"].values() if not group["prunable"]]
    assert frozen
    assert all(group["reason"] for group in frozen)


def test_params_of_weights_that_are_not_there(flyweight):
    assert "Received 'none'" in flyweight("params", "-c", "demo_digits", "-w", "none").mistake


def test_colours_only_where_they_are_wanted(flyweight, monkeypatch):
    command = ("params", "-c", "demo_digits", *SMALL)
    plain = flyweight(*command).out
    assert "\x1b" not in plain
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    coloured = flyweight(*command).out
    assert "\x1b[32mprunable" in coloured
    assert re.sub(r"\x1b\[\d+m", "", coloured) == plain


def test_params_says_what_exact_cuts_leave(flyweight):
    command = ("params", "-c", "demo_digits", *SMALL)
    assert "note: " not in flyweight(*command).err
    Path("mixed.yaml").write_text(
        "model: timm/test_convnext\nnum_classes: 3\ninput_size: 32\n"
        "data: {format: digits_classes, size: 40, train_count: 8, val_count: 6}\n"
        "train: {steps: 2, batch_size: 4}\n"
    )
    command = ("params", "-c", "mixed.yaml")
    note = "groups stay whole because LayerNorm ("
    err = flyweight(*command).err
    assert err.startswith("note: at ratio 0.5 of every group, ")
    assert note in err
    assert err.count("\n") == 1
    (found,) = flyweight(*command, "--json").json["notes"]
    assert note in found
