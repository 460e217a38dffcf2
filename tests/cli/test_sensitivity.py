import pickle
import re
import shlex

import pytest
import torch
from PIL import Image
from tests import browser

import flyweight as fw
from flyweight.cli.sensitivity import loss_table
from flyweight.sensitivity import Point, Sensitivity

TINY = ("width=0.1", "input_size=64", "data.val_count=3", "data.size=64", "eval_batch_size=2")
NAMES = ("yolo_block.0.0.0.conv.weights", "yolo_block.2.tip.conv.weights")


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    model = fw.create("yolov3_mobilenet_v1", num_classes=10, width=0.1)
    path = tmp_path / "dense.safetensors"
    labels = tuple(map(str, range(10)))
    fw.save(model, path, task="detect", labels=labels, preprocessing={"height": 64, "width": 64})
    return path


def scan(flyweight, checkpoint, *more):
    named = ("-p", ",".join(NAMES), "-r", "0.25 0.5", "-w", checkpoint)
    return flyweight("sensitivity", "-c", "demo_digits", "-o", *TINY[:1], *(x for t in TINY[1:] for x in ("-o", t)), *named, *more)  # fmt: skip  # noqa: E501


def test_an_untrained_network_is_refused_before_the_scan(flyweight, checkpoint, tmp_path):
    answer = scan(flyweight, checkpoint)
    assert answer.status == 2
    assert "A sensitivity must be of a network that works" in answer.err
    assert not (tmp_path / "sensitivities.json").exists()


def curves(scale=1.0):
    points = {name: tuple(Point(r, 0.8 - 0.1 * r * scale) for r in (0.25, 0.5)) for name in NAMES}
    return Sensitivity("map_50", 0.8, points, local=True)


def test_curves_become_ratios(flyweight, tmp_path):
    curves().save(tmp_path / "s.json")
    small = [x for text in TINY[:2] for x in ("-o", text)]
    command = ("prune", "-c", "demo_digits", *small, "--dry-run", "--json")
    found = flyweight(*command, "--sensitivities", "s.json", "--max-drop", "0.04").json
    before, after = found["groups"]["yolo_block.0.0.0.conv.weight"].values()
    ratio = 0.25 + 0.25 * (0.04 - 0.03125) / 0.03125
    assert before - after == round(before * ratio)
    old = flyweight(*command, "--sensitivities_file", "s.json", "--eval_metric_loss", "0.04").json
    assert old == found
    within = flyweight(*command, "--sensitivities", "s.json", "--budget", "macs=0.97").json
    assert within["after"]["macs"] <= 0.97 * within["before"]["macs"]
    assert within["groups"]
    ranked = flyweight(*command, "--budget", "macs=0.9")  # without a scan
    assert ranked.json["after"]["macs"] <= 0.9 * ranked.json["before"]["macs"]
    floor = flyweight(*command, "--sensitivities", "s.json", "--budget", "macs=0.1")
    assert "the floor is" in floor.mistake
    both = flyweight(*command, "--sensitivities", "s.json", "-p", NAMES[0])
    assert "Ratios must come from one place" in both.mistake
    assert "must allow some layer" in flyweight(*command, "--sensitivities", "s.json", "--max-drop", "0.001").mistake  # fmt: skip  # noqa: E501


def test_layers_that_a_network_lacks_are_passed_over_until_none_is_left(flyweight, tmp_path):
    table = {NAMES[0]: {0.5: 0.01}, "res9z_branch1_weights": {0.5: 0.01}}
    (tmp_path / "sensitivities.data").write_bytes(pickle.dumps(table))
    small = [x for text in TINY[:2] for x in ("-o", text)]
    command = ("prune", "-c", "demo_digits", *small, "--dry-run", "--json", "--sensitivities")
    found = flyweight(*command, "sensitivities.data").json
    assert list(found["groups"]) == ["yolo_block.0.0.0.conv.weight"]
    del table[NAMES[0]]
    (tmp_path / "sensitivities.data").write_bytes(pickle.dumps(table))
    assert "1 layer, and none is" in flyweight(*command, "sensitivities.data").mistake


def test_files_are_merged(flyweight, tmp_path):
    curves().save(tmp_path / "one.json")
    Sensitivity("map_50", 0.8, {"c": (Point(0.1, 0.4),)}).save(tmp_path / "two.json")
    found = flyweight("sensitivity", "--merge", "one.json", "--merge", "two.json", "-s", "all.json", "--json").json  # fmt: skip  # noqa: E501
    assert list(found["losses"]) == [*NAMES, "c"]
    assert found["losses"]["c"] == {"0.1": 0.5}


def test_curves_are_drawn_beside_the_file_and_the_page_asks_for_the_network(flyweight, tmp_path):
    curves().save(tmp_path / "one.json")
    merged = ("sensitivity", "--merge", "one.json", "--json", "-s")
    answer = flyweight(*merged, "all.json")
    assert answer.json["picture"] == "all.png"
    assert "page" not in answer.json
    assert "'all.html' needs the network: add -c CONFIG" in answer.err
    with Image.open(tmp_path / "all.png") as picture:
        assert picture.format == "PNG"
    assert not (tmp_path / "all.html").exists()
    other = flyweight(*merged, "b.data", "--no-plot", "--plot", "pictures/mine.png")
    assert other.json["picture"] == "pictures/mine.png"
    assert other.err == ""
    assert flyweight(*merged, "c.json", "--no-plot").json.keys() == {
        *("metric", "baseline", "losses", "file")
    }
    flyweight(*merged, "curves.data")
    assert (tmp_path / "curves.data.png").is_file()


@pytest.mark.browser
@pytest.mark.slow
def test_the_command_on_the_page_cuts_what_the_page_shows(flyweight, checkpoint, tmp_path):
    curves().save(tmp_path / "one.json")
    options = [x for text in TINY for x in ("-o", text)]
    network = ("-c", "demo_digits", *options, "-w", checkpoint)
    made = flyweight("sensitivity", "--merge", "one.json", "-s", "s.json", "--json", *network)
    assert made.json["page"] == "s.html"
    for state, option in (("max_drop&value=0.04", "--max-drop 0.04"), ("macs&value=0.97", "--budget macs=0.97")):  # fmt: skip  # noqa: E501
        document = browser.shown(tmp_path / "s.html", f"mode={state}")
        command = browser.text_of(document, "explorer-command")
        priced = re.search(r'id="explorer-macs"[^>]* data-exact="(\d+)"', document)[1]
        assert command.endswith(f" --sensitivities s.json {option}")
        lines = [command]
        exactly = browser.text_of(document, "explorer-ratios")
        assert bool(exactly) == state.startswith("macs")
        lines += [exactly] * bool(exactly)
        shown = fw.PruningPlan.from_json(browser.text_of(document, "explorer-plan"))
        for line in lines:
            found = flyweight(*shlex.split(line)[1:], "--dry-run", "--json").json
            widths = {name: after for name, (_, after) in groups_of(found).items()}
            assert widths == {name: len(group.keep) for name, group in shown.groups.items()}
            assert int(priced) == found["after"]["macs"]


def groups_of(found):
    return {name: tuple(sides.values()) for name, sides in found["groups"].items()}


def test_the_table():
    text = loss_table(curves())
    assert text.splitlines()[0].split() == ["loss", "in", "%", "at", "0.25", "0.5"]
    assert text.splitlines()[1].split() == [NAMES[0], "3.1", "6.2"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "must have a config"),
        (("-c", "demo_digits", "-r", "half"), "Received 'half'"),
        (("-c", "demo_digits", "-r", "0.5 1.5"), "between 0 and 1"),
        (("--merge", "missing"), "must be readable"),
    ],
)
def test_mistakes(flyweight, checkpoint, arguments, said):
    assert said in flyweight("sensitivity", "-w", checkpoint, *arguments).mistake


def test_pictures_without_labels_are_enough(flyweight, checkpoint, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        Image.effect_noise((64, 64), 90).convert("RGB").save(folder / f"{number}.png")
    answer = scan(flyweight, checkpoint, "--pictures", folder, "--json", "--no-plot")
    assert answer.status == 0, answer.err
    assert "weaker than a metric" in answer.err
    found = answer.json
    assert (found["metric"], found["baseline"]) == ("agreement", 1.0)
    losses = found["losses"][NAMES[0]]
    assert 0 < losses["0.25"] < losses["0.5"] < 1


def test_the_fast_mode_gives_intervals(flyweight, checkpoint, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(4):
        Image.effect_noise((64, 64), 90).convert("RGB").save(folder / f"{number}.png")
    answer = scan(flyweight, checkpoint, "--pictures", folder, "--mode", "fast", "--no-plot")
    assert answer.status == 0, answer.err
    found = Sensitivity.from_json((tmp_path / "sensitivities.json").read_text())
    points = [point for curve in found.curves.values() for point in curve]
    assert points
    assert all(p.interval[0] <= p.value <= p.interval[1] for p in points)


def test_how_to_scan_must_be_meant(flyweight, checkpoint):
    wrong = scan(flyweight, checkpoint, "--mode", "fats")
    assert "Received 'fats' in --mode" in wrong.mistake
    assert "fast" in wrong.mistake
    assert "between 0 and 1" in scan(flyweight, checkpoint, "--mode", "fast", "--max-drop", "5").mistake  # fmt: skip  # noqa: E501
    assert "fast or spread" in scan(flyweight, checkpoint, "--mode", "fast", "--ray", "x:1").mistake
