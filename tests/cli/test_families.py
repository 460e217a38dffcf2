"""Every family of classifiers and segmenters, and a network of one's own, through the commands."""

import sys
from pathlib import Path

import pytest
from PIL import Image

import flyweight as fw
from flyweight.checkpoint import read
from flyweight.data.layouts.digit_sets import make_digit_maps

CLASSES = """
num_classes: 10
input_size: 32
fit: crop
antialias: true
data: {format: digits_classes, size: 40, train_count: 8, val_count: 6}
augment: {classify: {rand_augment: [1, 5], mixup_alpha: 0.2}}
classify: {label_smoothing: 0.1}
"""
MAPS = """
num_classes: 11
input_size: 64
fit: pad
data: {format: digits_maps, size: 72, train_count: 8, val_count: 3}
segment: {dice: 0.5}
"""
BOTH = """
train: {steps: 2, batch_size: 4, num_workers: 0, evaluate_every: 2, schedule: poly}
prune: {params: [all], ratios: [0.25]}
"""
FAMILIES = {
    "timm": "model: timm/mobilenetv2_035" + CLASSES + BOTH,
    "torchvision": "model: torchvision/squeezenet1_1" + CLASSES + BOTH,
    "unet": "model: unet\nwidth: 0.125" + MAPS + BOTH,
    "lraspp": "model: lraspp_mobilenet_v3_large" + MAPS + BOTH,
    "deeplabv3p": "model: deeplabv3p\nmodel_args: {backbone: mobilenetv2_035}" + MAPS + BOTH,
    "own": "model: ownpack:build\ntask: classify\nmodel_args: {width: 12}" + CLASSES + BOTH,
}
OWN = """
from torch import nn
def build(num_classes, width):
    layers = [nn.Conv2d(3, width, 3, stride=2), nn.BatchNorm2d(width), nn.ReLU()]
    layers += [nn.Conv2d(width, 2 * width, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(2 * width, num_classes))
"""


@pytest.fixture
def images(flyweight, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("ownpack.py").write_text(OWN)
    made = make_digit_maps("val", 2, size=90)
    Path("pictures").mkdir()
    for index in range(2):
        Image.fromarray(made.image(index)[:70]).save(f"pictures/{index}.png")
    yield Path("pictures")
    sys.modules.pop("ownpack", None)


def config_of(family):
    path = Path(f"{family}.yaml")
    path.write_text(FAMILIES[family])
    return ("-c", path)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_train_prune_export_predict(flyweight, images, family):
    config = config_of(family)
    bare = f"output/{family}/best_model"
    trained = flyweight("train", *config, "--json")
    assert trained.status == 0, trained.err
    primary = "miou" if "digits_maps" in FAMILIES[family] else "top1"
    assert next(iter(trained.json["metrics"])) == primary

    pruned = flyweight("prune", *config, "-o", f"weights={bare}", "--json")
    assert pruned.status == 0, pruned.err
    assert pruned.json["after"]["macs"] < 0.8 * pruned.json["before"]["macs"]
    assert len(read(f"{bare}.safetensors").plans) == 1
    evaluated = flyweight("eval", *config, "-w", bare, "--json")
    assert evaluated.json["metrics"] == pytest.approx(pruned.json["metrics"], nan_ok=True)

    exported = flyweight("export", *config, "-w", bare, "--json")
    assert exported.status == 0, exported.err
    assert Path(exported.json["sidecar"]).is_file()
    own = config if family == "own" else ()
    ours = flyweight("predict", images, *own, "-w", bare, "--json", "--output-dir", "ours")
    theirs = flyweight("predict", images, "-w", exported.json["path"], "--json")
    for path, rows in ours.json.items():
        assert rows
        assert rows[0]["label"] in read(f"{bare}.safetensors").labels
        if primary == "top1":
            assert rows[0]["score"] == pytest.approx(theirs.json[path][0]["score"], abs=1e-3)
        else:
            assert sum(row["share"] for row in rows) == pytest.approx(1, abs=1e-2)
        assert (Path("ours") / Path(path).name).is_file()


def test_a_network_of_ones_own_needs_its_config(flyweight, images):
    config = config_of("own")
    bare = "output/own/best_model.safetensors"
    assert flyweight("train", *config).status == 0
    refused = flyweight("predict", images, "-w", bare)
    assert "nothing that a file names is imported" in refused.mistake
    assert "Give -c CONFIG with 'model: ownpack:build'" in refused.mistake
    assert "build=FUNCTION" in flyweight("export", "-w", bare).mistake
    other = flyweight("eval", *config, "-o", "model=ownpack:other", f"weights={bare}")
    assert "with model 'ownpack:build' where the config says 'ownpack:other'" in other.mistake
    wider = flyweight("eval", *config, "-o", "model_args={}", f"weights={bare}")
    assert "with width 12 where the config says 'nothing'" in wider.mistake
    import ownpack

    assert fw.load(bare, build=ownpack.build)[0].out_channels == 12


@pytest.mark.parametrize(
    ("family", "told", "said"),
    [
        ("timm", "model=timm/mobilenetv2_35", "Nearest: 'timm/mobilenetv2_035'"),
        ("timm", "model=torchvision/mobilenet_v9", "Nearest: 'torchvision/mobilenet_v"),
        ("timm", "data.format=digits_maps", "to classify: imagefolder, class_list, digits_classes"),
        ("unet", "num_classes=3", "data's labels, 11 (background"),
        ("unet", "task=detect", "'unet', whose task is 'segment'"),
        ("own", "task=null", "The task of your own network must be named"),
        ("own", "model=ownpack:bild", "has no 'bild'. Nearest: 'build'"),
        ("own", "model_args.depth=3", "must take the given arguments"),
        ("timm", "pretrain_weights=torchvision", "Give pretrain_weights: timm"),
        ("unet", "augment.segment.scale=[2,1]", "scale must rise"),
        ("unet", "augment.segment.scales=[1,2]", "Nearest: 'augment.segment.scale'"),
        ("timm", "data={format: imagefolder, root: nowhere}", "must be a folder"),
    ],
)
def test_mistakes(flyweight, images, family, told, said):
    assert said in flyweight("train", *config_of(family), "-o", told).mistake


def test_a_classifier_has_no_detections(flyweight, images):
    config = config_of("own")
    assert flyweight("train", *config).status == 0
    refused = flyweight("export", *config, "--end", "detections")
    assert "--end must be one of decoded, raw" in refused.err.splitlines()[-1]
    assert refused.status == 2


def test_a_segmenter_of_ones_own_that_returns_something_else(flyweight, images):
    Path("flat.yaml").write_text(
        "model: ownpack:build\ntask: segment\nmodel_args: {width: 8}" + MAPS + BOTH
    )
    answer = flyweight("train", "-c", "flat.yaml")
    assert "A segmenter must return scores of shape (n, 11, h, w)" in answer.err.splitlines()[-1]
    assert answer.status == 2
