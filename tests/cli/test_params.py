import re

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
