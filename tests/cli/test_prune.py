import subprocess
import sys

import pytest

NAMES = [f"yolo_block.0.{place}.conv.weights" for place in ("0.0", "0.1", "1.0")]
OLD = (
    *("prune", "-c", "./configs/yolov3_mobilenet_v1_voc.yml"),
    *("--pruned_params", ",".join(NAMES), "--pruned_ratios=0.2,0.3,0.4"),
)


def test_the_old_command_priced(flyweight):
    answer = flyweight(*OLD, "--dry-run", "--json")
    assert answer.err == (
        "hint: 3 of 3 pruned layers keep a number of channels that is no multiple of 8, which "
        "runtimes compute slowly; -o prune.round_to=16 keeps multiples\n"
    )
    aligned = flyweight(*OLD, "-o", "prune.round_to=16", "--dry-run", "--json")
    assert aligned.err == ""
    assert {g["after"] % 16 for g in aligned.json["groups"].values()} == {0}
    found = answer.json
    assert list(found) == ["before", "after", "groups"]
    assert found["groups"] == {
        "yolo_block.0.0.0.conv.weight": {"before": 512, "after": 410},
        "yolo_block.0.0.1.conv.weight": {"before": 1024, "after": 717},
        "yolo_block.0.1.0.conv.weight": {"before": 512, "after": 307},
    }
    spaces = [*OLD[:4], " ".join(NAMES), "--pruned_ratios", "0.2 0.3 0.4"]
    assert flyweight(*spaces, "--dry-run", "--json").json == found


def test_the_figures_of_r578(flyweight):
    found = flyweight("prune", "-c", "yolov3_mobilenet_v1_voc", "--dry-run", "--json").json
    assert found["before"]["macs"] == 21_694_656_000
    assert found["before"]["values"] == 24_286_881
    assert found["before"]["params"] == 24_248_097
    assert found["after"]["values"] == 7_887_392
    assert len(found["groups"]) == 18
    assert set(found["after"]) >= {"macs", "params", "size_bytes"}


def test_the_table_ends_in_the_originals_words(flyweight):
    answer = flyweight(*OLD, "--dry-run")
    last = answer.out.splitlines()[-1]
    assert last.startswith("FLOPs -0.0727")
    assert "total FLOPs: 21694656000.0" in last


def test_a_dry_run_loads_no_trainer_and_writes_nothing(tmp_path):
    heavy = ("torchvision", "lightning", "onnxruntime", "onnx", "sklearn", "timm")
    heavy += ("scipy", "matplotlib", "rich", "PIL", "sympy")
    code = (
        "import sys; from flyweight.cli.main import run; "
        f"status = run({[*OLD, '--dry-run']!r}); "
        f"print('loaded', [m for m in {heavy} if m in sys.modules], status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stdout.splitlines()[-1] == "loaded [] 0"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--pruned_params", "a,b", "--pruned_ratios", "0.5"), "2 parameters and 1 ratio"),
        (("--pruned_params", "a"), "1 parameter and 0 ratios"),
        (("-p", NAMES[0], "--pruned_ratios", "half"), "Received 'half' in --pruned-ratios"),
        (("-p", NAMES[0], "--pruned_ratios", "0"), "strictly between 0 and 1"),
        (("-p", NAMES[0], "--pruned_ratios", "1.0"), "strictly between 0 and 1"),
        (("-p", NAMES[0], "--pruned_ratios", "-0.2"), "strictly between 0 and 1"),
        (("-p", "yolo_blok.0.0.0.conv.weights", "--pruned_ratios", ".5"), "Nearest: 'yolo_block.0"),
        (("-p", f"{NAMES[0]},{NAMES[0]}", "--pruned_ratios", ".5,.5"), "named once"),
        (("--prune_criterion", "l1norm"), "Nearest: 'l1_norm'"),
        (("--flops-convention", "padle"), "Nearest: 'paddle'"),
        (("-o", "model=yolov3_mobilenetv1"), "Nearest: 'yolov3_mobilenet_v1'"),
        (("-o", "widht=1"), "Nearest: 'width'"),
        (("-o", "width"), "must read key=value"),
    ],
)
def test_mistakes(flyweight, arguments, said):
    small = ("-o", "width=0.1", "input_size=64")
    command = ("prune", "-c", "demo_digits", "--dry-run", "--json")
    assert said in flyweight(*command, *small, *arguments).mistake


def test_the_curves_that_come_along_are_named_with_their_data(flyweight):
    command = ("prune", "-c", "yolov3_mobilenet_v1_voc", "--sensitivities", "DEFAULT", "--dry-run")
    answer = flyweight(*command, "--max-drop", "0.05", "--json")
    assert answer.status == 0, answer.err
    assert "DEFAULT: measured on BCCD blood cells" in answer.err
    assert answer.json["after"]["macs"] < 0.9 * answer.json["before"]["macs"]
    other = flyweight("prune", "-c", "resnet50", "--sensitivities", "DEFAULT", "--dry-run")
    assert "which has none" in other.mistake


def test_print_params_as_the_originals_did(flyweight):
    answer = flyweight("prune", "-c", "./configs/yolov3_mobilenet_v1_voc.yml", "--print_params")
    lines = answer.out.splitlines()
    assert "parameter name: yolo_block.0.0.0.conv.weight\tshape: (512, 1024, 1, 1)" in lines
    assert "parameter name: backbone.conv1.conv.weight\tshape: (32, 3, 3, 3)" in lines
    assert answer.err == ""
