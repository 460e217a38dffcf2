import re
from importlib import resources

import pytest
import yaml

from flyweight.config.cuts import ALL, RatioCut
from flyweight.config.data import FORMATS
from flyweight.config.reading import known_configs, load_config
from flyweight.config.tasks import Suppression
from flyweight.engine.optimizer import make_optimizer
from flyweight.pipeline.network_plans import weightless
from flyweight.pipeline.networks import kind_of
from flyweight.pruning import resolve
from flyweight.zoo import spec_of

ORIGINALS = (
    "yolov3_mobilenet_v1",
    "yolov3_mobilenet_v1_distilled",
    "yolov3_mobilenet_v1_voc",
    "yolov3_mobilenet_v1_voc_distilled",
    "yolov3_mobilenet_v3",
    "yolov3_mobilenet_v3_distilled",
    "yolov3_r34",
    "yolov3_r34_voc",
    "yolov3_r50vd_dcn",
    "yolov3_r50vd_dcn_obj365_pretrained_coco",
    "ssdlite_mobilenet_v3_large",
    "ssdlite_mobilenet_v3_small",
    "faster_rcnn_r50_1x",
    "mask_rcnn_r50_1x",
    "cascade_rcnn_mobilenetv3_fpn_320",
    "cascade_rcnn_mobilenetv3_fpn_640",
    "blazeface",
    "blazeface_lite",
    "blazeface_nas",
    "blazeface_nas_v2",
)
# Steps, milestones, warm-up, steps between evaluations, smoothed labels.
YOLO_SCHEDULES = {
    "yolov3_mobilenet_v1": (500_000, (400_000, 450_000), 4000, 10_000, True),
    "yolov3_mobilenet_v1_voc": (70_000, (55_000, 62_000), 1000, 2000, False),
    "yolov3_mobilenet_v3": (500_000, (400_000, 450_000), 4000, 10_000, False),
    "yolov3_r34": (500_000, (400_000, 450_000), 4000, 10_000, True),
    "yolov3_r34_voc": (70_000, (55_000, 62_000), 1000, 2000, False),
    "yolov3_r50vd_dcn": (500_000, (400_000, 450_000), 4000, 20_000, False),
    "yolov3_r50vd_dcn_obj365_pretrained_coco": (85_000, (55_000, 75_000), 4000, 10_000, False),
}
PRUNED = [name for name in known_configs() if load_config(name)[1].prune.params]


def test_the_names_are_the_originals():
    assert set(ORIGINALS) < set(known_configs())
    assert "demo_digits" in known_configs()


@pytest.mark.parametrize("name", known_configs())
def test_it_loads_and_says_how_it_is_run(name):
    label, config = load_config(name)
    assert label == name
    assert spec_of(config.model).task == kind_of(config)
    assert config.data.format in FORMATS[kind_of(config)]
    text = (resources.files("flyweight.config.presets") / f"{name}.yaml").read_text(
        encoding="utf-8"
    )
    for word in ("# command:", "# hardware:", "# expected:"):
        assert word in text


@pytest.mark.parametrize("name", PRUNED)
def test_what_it_prunes_is_there(name):
    _, config = load_config(name)
    cut = RatioCut(config.prune.params, config.prune.ratios, config.prune.criterion)
    if cut.params == (ALL,):
        return
    names = [parameter for parameter, _ in weightless(config).named_parameters()]
    assert [resolve(param, names) for param in cut.params] == list(cut.params)


# Student, teacher, and whether its loss is the fine-grained one.
TAUGHT = {
    "yolov3_mobilenet_v1_voc": ("yolov3_r34_voc", False),
    "yolov3_mobilenet_v1": ("yolov3_r34", True),
    "yolov3_mobilenet_v3": ("yolov3_r34", True),
}


@pytest.mark.parametrize("name", TAUGHT)
def test_the_students_of_the_originals_differ_only_in_their_teacher(name):
    alone, taught = load_config(name)[1], load_config(f"{name}_distilled")[1]
    changed = {key for key in vars(alone) if getattr(alone, key) != getattr(taught, key)}
    assert changed <= {"distill", "quantize"}
    teacher, fine_grained = TAUGHT[name]
    assert taught.distill.teacher == f"output/{teacher}/best_model.safetensors"
    assert taught.distill.strategy_name == ("split" if fine_grained else "l2")
    assert taught.distill.recipe == "finetune"
    other = load_config(teacher)[1]
    assert (other.num_classes, other.data) == (taught.num_classes, taught.data)


@pytest.mark.parametrize("name", YOLO_SCHEDULES)
def test_the_originals_settings_of_yolo(name):
    _, config = load_config(name)
    voc = name.endswith("_voc")
    steps, milestones, warmup, every, smoothing = YOLO_SCHEDULES[name]
    assert config.num_classes == (20 if voc else 80)
    train = config.train
    assert (train.steps, train.milestones, train.warmup_steps) == (steps, milestones, warmup)
    assert (train.evaluate_every, train.batch_size, train.learning_rate) == (every, 64, 1e-3)
    assert (train.momentum, train.weight_decay, train.warmup_start_factor) == (0.9, 5e-4, 0)
    assert config.detect.metric == ("voc_11point" if voc else "coco")
    assert config.detect.label_smoothing == smoothing
    assert config.input_size == 608
    assert config.augment.multi_scale == tuple(range(320, 609, 32))
    assert config.detect.suppression == Suppression(
        score_threshold=0.01, iou_threshold=0.45, top_k=1000, keep=100
    )
    assert len(config.prune.params) == 18


def test_objects365s_weights_want_pixels_up_to_255():
    values = {name: load_config(name)[1].preprocessing.value_range for name in YOLO_SCHEDULES}
    assert [name for name, value in values.items() if value == 255] == [
        "yolov3_r50vd_dcn_obj365_pretrained_coco"
    ]


def test_the_phones_recipe_prunes_by_the_geometric_median():
    _, config = load_config("yolov3_mobilenet_v3")
    assert config.prune.criterion == "geometry_median"
    assert config.prune.ratios == (0.75,) * 12 + (0.875,) * 6


@pytest.mark.parametrize("size", ["small", "large"])
def test_the_originals_settings_of_ssdlite(size):
    _, config = load_config(f"ssdlite_mobilenet_v3_{size}")
    train, suppression = config.train, config.detect.suppression
    assert (train.steps, train.batch_size, train.learning_rate) == (400_000, 512, 0.4)
    assert (train.schedule, train.warmup_steps, train.warmup_start_factor) == (
        "cosine",
        2000,
        0.33333,
    )
    assert (suppression.top_k, suppression.keep, suppression.iou_threshold) == (400, 200, 0.45)
    assert (config.input_size, config.detect.match_threshold, config.detect.negatives) == (
        320,
        0.5,
        3,
    )


@pytest.mark.parametrize("name", ["faster_rcnn_r50_1x", "mask_rcnn_r50_1x"])
def test_the_originals_settings_of_the_resnet_detectors(name):
    _, config = load_config(name)
    train, suppression = config.train, config.detect.suppression
    assert (train.steps, train.milestones, train.warmup_steps) == (180_000, (120_000, 160_000), 500)
    assert (train.batch_size, train.learning_rate, train.weight_decay) == (8, 0.01, 1e-4)
    assert train.warmup_start_factor == pytest.approx(1 / 3)
    assert (suppression.score_threshold, suppression.iou_threshold, suppression.keep) == (
        0.05,
        0.5,
        100,
    )
    assert (config.input_size, config.fit) == ((800, 1344), "pad")
    assert config.data.masks == name.startswith("mask")
    assert config.prune.ratios == (0.3, 0.4)


@pytest.mark.parametrize("side", [320, 640])
def test_the_originals_settings_of_the_cascades(side):
    _, config = load_config(f"cascade_rcnn_mobilenetv3_fpn_{side}")
    train = config.train
    assert (train.steps, train.batch_size, train.learning_rate) == (500_000, 16, 0.02)
    assert (train.schedule, train.warmup_steps, train.warmup_start_factor) == ("cosine", 500, 0.1)
    assert (train.weight_decay, config.input_size, config.fit) == (4e-5, side, "pad")
    assert bool(train.rate_factors) == (side == 320)


# The original's list of five factors: block b takes entry min(b // 3, 4), what follows as the last.
@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("ssdlite_mobilenet_v3_small", 11),
        ("ssdlite_mobilenet_v3_large", 15),
        ("cascade_rcnn_mobilenetv3_fpn_320", 15),
    ],
)
def test_rates_of_trained_blocks_are_the_originals(name, blocks):
    _, config = load_config(name)
    factors = [0.25, 0.25, 0.5, 0.5, 0.75]
    model = weightless(config)
    optimizer = make_optimizer(model, config.train.model_copy(update={"learning_rate": 1.0}))
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        number = re.match(r"backbone\.conv(\d+)\.", name)
        if number is None:
            assert rates[id(parameter)] == 1
        else:
            stage = min(max(int(number[1]) - 2, 0), blocks)
            assert rates[id(parameter)] == factors[min(stage // 3, 4)], name


@pytest.mark.parametrize("name", [name for name in ORIGINALS if name.startswith("blazeface")])
def test_the_originals_settings_of_faces(name):
    _, config = load_config(name)
    train, suppression = config.train, config.detect.suppression
    assert (train.steps, train.milestones, train.batch_size) == (320_000, (240_000, 300_000), 32)
    assert (train.optimizer, train.learning_rate, train.momentum) == ("rmsprop", 1e-3, 0)
    assert (suppression.iou_threshold, suppression.top_k, suppression.keep) == (0.3, 5000, 750)
    assert (config.detect.match_threshold, config.detect.test) == (0.35, "native")
    seen = config.preprocessing
    assert (seen.channels, seen.value_range, seen.mean) == ("bgr", 255, (104, 117, 123))
    model = weightless(config)
    optimizer = make_optimizer(model, train)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    found = {rate: [] for rate in sorted(set(rates.values()))}
    for key, parameter in model.named_parameters():
        found[rates[id(parameter)]].append(key)
    assert list(found) == pytest.approx([1e-4, 1e-3, 2e-3])
    slow, plain, fast = found.values()
    assert all(key.startswith("backbone.") and key.endswith("conv.weight") for key in slow)
    assert fast == ["loc.1.bias", "loc.2.bias", "conf.1.bias", "conf.2.bias"]
    assert not [key for key in plain if key.endswith("conv.weight")]


def test_they_are_plain_yaml():
    for name in known_configs():
        text = (resources.files("flyweight.config.presets") / f"{name}.yaml").read_text(
            encoding="utf-8"
        )
        assert isinstance(yaml.safe_load(text), dict)


def test_the_settings_of_the_tutorials_of_paddlex():
    _, classes = load_config("mobilenet_v2_vegetables")
    assert (classes.train.batch_size, classes.train.learning_rate) == (32, 0.025)
    assert [m / classes.train.steps for m in classes.train.milestones] == [0.4, 0.6, 0.8]
    assert (classes.input_size, classes.fit, classes.crop_share) == (224, "crop", 224 / 256)
    _, maps = load_config("unet_optic_disc")
    assert (maps.train.batch_size, maps.train.learning_rate) == (4, 0.01)
    assert (maps.train.schedule, maps.train.power, maps.train.weight_decay) == ("poly", 0.9, 4e-5)
    assert [512 * scale for scale in maps.augment.segment.scale] == [400, 600]


@pytest.mark.parametrize("name", ["", "_lite", "_nas", "_nas_v2"])
def test_the_originals_settings_of_blazeface(name):
    _, config = load_config(f"blazeface{name}")
    train = config.train
    assert (train.steps, train.batch_size, train.milestones) == (320_000, 32, (240_000, 300_000))
    assert (train.optimizer, train.momentum, train.learning_rate) == ("rmsprop", 0, 1e-3)
    assert (train.weight_decay, train.gamma, train.warmup_steps) == (5e-4, 0.1, 0)
    assert config.preprocessing.mean_colour == (123, 117, 104)
    assert (config.input_size, config.value_range, config.channels) == (640, 255, "bgr")
    assert config.detect.match_threshold == 0.35
    assert config.detect.suppression == Suppression(
        score_threshold=0.01, iou_threshold=0.3, top_k=5000, keep=750
    )
    assert config.augment.brightness == (0.875, 1.125)
    assert config.augment.saturation == config.augment.contrast == (0.5, 1.5)
    assert config.augment.anchor_scales == (16, 32, 64, 128)
    assert config.augment.face_crop
    assert config.detect.metric == "wider"
    # Every factor finds its parameters.
    optimizer = make_optimizer(weightless(config), train)
    assert {group["lr"] for group in optimizer.param_groups} == {1e-3, 1e-4, 2e-3}


@pytest.mark.parametrize("name", [name for name in YOLO_SCHEDULES if "voc" not in name])
def test_training_with_quantization_is_the_originals(name):
    wanted = load_config(name)[1].quantize.train
    if name in ("yolov3_mobilenet_v3", "yolov3_r50vd_dcn"):
        assert wanted is None  # Not among their recipes.
        return
    assert (wanted.steps, wanted.learning_rate, wanted.milestones) == (30_000, 1e-4, (10_000,))


@pytest.mark.parametrize("size", ["small", "large"])
def test_ssdlite_is_quantized_without_what_the_originals_left_out(size):
    config = load_config(f"ssdlite_mobilenet_v3_{size}")[1]
    assert config.quantize.skip == ("res_conv1", "se_block")
    assert config.quantize.train == config.train
