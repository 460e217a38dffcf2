"""Every mistake a user can make with files: status 2, one line, nothing half-written."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import flyweight as fw
from flyweight.config.data import DataConfig
from flyweight.config.reading import load_config
from flyweight.data.layouts.voc_write import write_voc
from flyweight.data.loading import open_set
from flyweight.pipeline.inputs import Saver
from flyweight.pipeline.network_plans import build_model
from flyweight.workspace import Workspace

LABELS = tuple("0123456789")
SMALL = ("width=0.1", "input_size=64", "data.size=64", "data.train_count=4", "data.val_count=2")
FAST = ("train.steps=1", "train.batch_size=2", "train.warmup_steps=0", "train.num_workers=0")
CONFIG = ("-c", "demo_digits", "-o", *SMALL, *FAST, "train.precision=32")


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    folder = tmp_path_factory.mktemp("material")
    config = load_config("demo_digits", SMALL)[1]
    Saver(config, LABELS, "detect")(build_model(config), {}, folder / "good.safetensors")
    whole = (folder / "good.safetensors").read_bytes()
    (folder / "half.safetensors").write_bytes(whole[: len(whole) // 2])
    torch.save({"a": torch.zeros(1)}, folder / "pickle.pth")
    fw.save(build_model(config), folder / "bare.safetensors")
    (folder / "twice.yaml").write_text("model: a\nwidth: 1\nwidth: 2\n")
    for split, count in (("train", 3), ("val", 2)):
        digits = DataConfig(format="digits", size=64, train_count=count, val_count=count)
        write_voc(open_set(digits, split), folder / "set")
    return folder


@pytest.fixture
def here(material, tmp_path):
    shutil.copytree(material, tmp_path, dirs_exist_ok=True)
    return tmp_path


def files_in(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


VOC = ("data.format=voc", "data.root=set")


def spoil_end(root):
    path = next((root / "set/JPEGImages").glob("val_*"))
    path.write_bytes(path.read_bytes()[:-30])


def spoil_middle(root):
    path = next((root / "set/JPEGImages").glob("val_*"))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 40] = b"\0" * 40
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["eval", *CONFIG], "A checkpoint must be given. Received none, and 'output/demo_digits"),
        (["eval", *CONFIG, "weights=none"], "must exist. Received 'none', which is no file"),
        (
            ["eval", *CONFIG, "weights=half"],
            "must be a whole .safetensors file. Received 'half.saf",
        ),
        (["eval", *CONFIG, "weights=pickle.pth"], "pickles (.pth, .pt, .pdparams) are not read"),
        (
            ["eval", *CONFIG, "weights=good", "width=0.2"],
            "with width 0.1 where the config says 0.2",
        ),
        (["eval", *CONFIG, "weights=good", "num_classes=3"], "with num_classes 10 where"),
        (["eval", "-c", "twice.yaml"], "Received 'width' again, where: twice.yaml:3."),
        (["prune", *CONFIG, "weights=half"], "must be a whole .safetensors file"),
        (["train", *CONFIG, "pretrain_weights=none"], "A file of weights must exist"),
        (["train", *CONFIG, "pretrain_weights=pickle.pth"], "a pickle, which is never loaded"),
        (["train", *CONFIG, "data.format=voc", "data.root=none"], "A VOC set must be a folder"),
        (["train", *CONFIG, *VOC, "data.train=trian"], "Received 'trian'. Nearest: 'train'"),
        (["train", *CONFIG, "data.format=coco", "data.root=set"], "set"),
        (["train", *CONFIG, "num_classes=4"], "Set it with: -o num_classes=10"),
        (["export", "-o", "weights=half"], "must be a whole .safetensors file"),
        (
            ["export", "-w", "bare"],
            "without labels and preprocessing. Save it again with: fw.save(",
        ),
        (["export"], "Received neither -c nor -o weights="),
        (["export", "-o", "weights"], "must read key=value"),
        (["export", "-w", "good", "-o", "input_size=32"], "Received 'input_size='. Add: -c CONFIG"),
        (["export", "-w", "good", "--end", "box"], "--end must be one of detections, decoded, raw"),
        (
            ["export", "-w", "good", "-p", "a", "--pruned_ratios", ".5,.6"],
            "1 parameter and 2 ratios",
        ),
        (["predict", "-w", "good"], "must be given images. Received none"),
        (["predict", "-w", "good", "none.png"], "An image must exist. Received 'none.png'"),
        (["predict", "-w", "good", "set/Annotations"], "Received 'set/Annotations' without any"),
        (["predict", "-w", "good", "good.safetensors"], "must decode to the last pixel"),
        (["predict", "-w", "none", "set/JPEGImages"], "must exist. Received 'none'"),
        (["predict", "-w", "good", "set", "--draw-threshold", "2"], "must lie in 0..1"),
        (
            ["predict", "-w", "none.onnx", "set/JPEGImages"],
            "Received 'none.onnx', which is no file",
        ),
        (["bench", "none.onnx"], "none.onnx"),
        (["bench", "good.safetensors", "--threads", "two"], "--threads must list whole numbers"),
        (["bench", "a.onnx", "--shape", "images"], "--shape must read NAME=SIZExSIZE"),
        (["report", "nowhere"], "a finished run, such as --output-dir of `flyweight demo`"),
        (["demo", *CONFIG, "weights=good"], "must train its own network"),
        (["demo", *CONFIG, "prune.ratios=[0.5]"], "18 parameters and 1 ratio"),
    ],
)
def test_mistakes(flyweight, here, arguments, said):
    before = files_in(here)
    line = flyweight(*arguments).mistake
    assert said in line
    assert files_in(here) == before


def test_an_empty_split(flyweight, here):
    (here / "set/ImageSets/Main/val.txt").write_text("")
    for command in ("train", "eval"):
        line = flyweight(command, *CONFIG, *VOC, "weights=good").mistake
        assert "A split must have images. Received 'set/val' with none" in line


def test_a_picture_that_is_cut_off(flyweight, here):
    spoil_end(here)
    line = flyweight("train", *CONFIG, *VOC).mistake
    assert "val_" in line
    assert "All are listed in 'output/demo_digits/data_problems.txt'" in line
    line = flyweight("eval", *CONFIG, *VOC, "weights=good", "save_dir=other").mistake
    assert "All are listed in 'other/demo_digits/data_problems.txt'" in line
    assert "val_" in (here / "other/demo_digits/data_problems.txt").read_text()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_breaks_off_in_the_middle(flyweight, here, workers):
    spoil_middle(here)
    told = (*CONFIG, *VOC, "weights=good", f"train.num_workers={workers}")
    line = flyweight("eval", *told).mistake
    assert "must decode to the last pixel" in line
    assert "DataLoader" not in line


def test_a_parameter_of_another_network_for_eval(flyweight, here):
    cut = ("--pruned_params", "yolo_block.0.0.0.konv.weights", "--pruned_ratios", "0.5")
    answer = flyweight("eval", *CONFIG, "weights=good", *cut)
    assert answer.status == 2
    assert "Nearest: 'yolo_block.0.0.0.conv.weight'" in answer.err.splitlines()[-1]


def test_classes_in_another_order(flyweight, here):
    (here / "set/label_list.txt").write_text("\n".join(reversed(LABELS)))
    line = flyweight("eval", *CONFIG, *VOC, "weights=good").mistake
    assert "whose class 0 is '0' where the data says '9'" in line


def test_what_is_drawn_does_not_replace_the_picture(flyweight, here):
    picture = next((here / "set/JPEGImages").glob("*.png"))
    content = picture.read_bytes()
    line = flyweight("predict", "-w", "good", picture, "--output-dir", picture.parent).mistake
    assert "must not replace an image" in line
    assert picture.read_bytes() == content


@pytest.mark.parametrize("command", ["train", "prune", "demo"])
def test_a_folder_in_which_another_run_works(flyweight, here, command):
    folder = Path("run" if command == "demo" else "output/demo_digits")
    place = ("--output-dir", "run") if command == "demo" else ()
    with Workspace(folder).locked():
        line = flyweight(command, *CONFIG, *place).mistake
    assert f"Only one run at a time can work in a folder. Received '{folder}'" in line
    assert not folder.exists()


def test_a_full_disk_while_saving(flyweight, here, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    answer = flyweight("prune", *CONFIG, "weights=good", "--no-finetune")
    assert answer.status == 2
    last = answer.err.splitlines()[-1]
    assert last.startswith("error: 'output/demo_digits/prune.done.json' must be writable.")
    assert "No space left on device" in last
    assert not Path("output").exists()


@pytest.mark.slow
def test_a_really_full_disk_while_saving_the_checkpoint(here):
    # Files may grow to 100 kB only: enough for the plan and the logs, not for weights.
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); "
        "from flyweight.cli.main import run; "
        f"sys.exit(run({['prune', *CONFIG, 'weights=good', '--no-finetune']!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=here, check=False
    )
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert "pruned.safetensors' must be writable. Received: " in last
    assert "File too large" in last
    assert "Traceback" not in done.stderr
    names = {path.name for path in (here / "output/demo_digits").iterdir()}
    assert names == {"plan.json", "prune.done.json"}


def test_a_model_that_does_not_end_in_detections(flyweight, here):
    from flyweight.exporting.model_card import ModelCard
    from flyweight.exporting.onnx import to_onnx

    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1))
    to_onnx(model, "raw.onnx", example=(torch.zeros(1, 3, 8, 8),), card=ModelCard(name="a"))
    answer = flyweight("predict", "-w", "raw.onnx", "set/JPEGImages")
    assert answer.status == 2
    assert "which ends in 'raw'. Export it with: --end detections" in answer.err
    assert not Path("output").exists()


def test_saving_without_origin_is_told_in_python_too(tmp_path):
    with pytest.raises(fw.FlyweightError, match=r"Build it with fw\.create"):
        fw.save(torch.nn.Linear(1, 1), tmp_path / "a.safetensors")
