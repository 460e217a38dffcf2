import pytest

from flyweight.config.old_keys import OLD_KEYS, OTHER_WORDS, in_our_words
from flyweight.config.reading import load_config
from flyweight.config.settings import Config
from flyweight.errors import ConfigError

DECODER_KEYS = {
    f"{network}.output_decoder.{key}"
    for network in ("SSD", "BlazeFace")
    for key in ("score_threshold", "nms_threshold", "keep_top_k", "nms_top_k")
}


def test_the_originals_keys_of_detectors_with_priors():
    given = [f"{key}={value}" for key, value in zip(sorted(DECODER_KEYS), range(1, 9), strict=True)]
    given = [text for text in given if "threshold" not in text]
    for network in ("SSD", "BlazeFace"):
        chosen = [text for text in given if text.startswith(network)]
        _, config = load_config("ssdlite_mobilenet_v3_small", chosen)
        keep, top_k = (int(text.partition("=")[2]) for text in chosen)
        assert (config.detect.suppression.keep, config.detect.suppression.top_k) == (keep, top_k)
    thresholds = [f"SSD.output_decoder.{name}_threshold=0.25" for name in ("score", "nms")]
    multiplier = "MobileNetV3.multiplier=1.0"
    _, config = load_config("ssdlite_mobilenet_v3_small", [*thresholds, multiplier])
    nms = config.detect.suppression
    assert (nms.score_threshold, nms.iou_threshold) == (0.25, 0.25)
    assert config.arguments == {"num_classes": 80, "multiplier": 1.0}


def test_the_originals_keys():
    values = {
        "max_iters": "70001",
        "snapshot_iter": "5",
        "log_iter": "6",
        "worker_num": "0",
        "LearningRate.base_lr": "0.5",
        "TrainReader.batch_size": "3",
        "EvalReader.batch_size": "4",
        "YOLOv3Head.nms.score_threshold": "0.2",
        "YOLOv3Head.nms.nms_threshold": "0.3",
        "YOLOv3Head.nms.keep_top_k": "7",
        "YOLOv3Head.nms.nms_top_k": "8",
        "metric": "coco",
        "use_gpu": "false",
        "use_fine_grained_loss": "true",
    }
    assert values.keys() | DECODER_KEYS | {"MobileNetV3.multiplier"} == OLD_KEYS.keys()
    _, config = load_config(
        "yolov3_mobilenet_v1_voc", [f"{key}={value}" for key, value in values.items()]
    )
    train, nms = config.train, config.detect.suppression
    assert config.distill.use_fine_grained_loss is True
    assert (train.steps, train.evaluate_every, train.log_every) == (70001, 5, 6)
    assert (train.num_workers, train.learning_rate, train.batch_size) == (0, 0.5, 3)
    assert (config.eval_batch_size, config.detect.metric, train.accelerator) == (4, "coco", "cpu")
    assert (nms.score_threshold, nms.iou_threshold, nms.keep, nms.top_k) == (0.2, 0.3, 7, 8)


def test_a_key_of_version_0_1_0_is_read_from_files_and_overrides(tmp_path):
    text = (
        "{model: m, num_classes: 1, input_size: 32, data: {format: digits}, train: {steps: 1}, "
        "prune: {repair_pictures: 7, repair: true}}"
    )
    path = tmp_path / "a.yaml"
    path.write_text(text)
    _, config = load_config(str(path))
    assert (config.prune.repair_images, config.prune.repair) == (7, True)
    for key in ("prune.repair_pictures", "prune.repair_images"):
        assert load_config(str(path), [f"{key}=9"])[1].prune.repair_images == 9
    assert load_config(str(path), ["prune={repair_pictures: 8}"])[1].prune.repair_images == 8
    path.write_text(text.replace("repair: true", "repair_images: 3"))
    with pytest.raises(ConfigError, match=r"say every key once.*two names of one key"):
        load_config(str(path))


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("epochs", "train.steps"),
        ("lr", "train.learning_rate"),
        ("train.lr", "train.learning_rate"),
        ("batch", "train.batch_size"),
        ("--batch-size", "train.batch_size"),
        ("imgsz", "input_size"),
        ("nothing", ""),
    ],
)
def test_words_of_other_tools(word, key):
    assert (f"'{key}'" in in_our_words(word)) if key else in_our_words(word) == ""


def test_every_word_means_a_key_of_configs():
    for meant in OTHER_WORDS.values():
        place = Config
        for part in meant.split(" ")[0].split("."):
            assert part in place.model_fields
            place = place.model_fields[part].annotation


def test_a_word_of_another_tool_is_answered_with_ours():
    for given, key in (("epochs=3", "'train.steps'"), ("train.lr=1", "'train.learning_rate'")):
        with pytest.raises(ConfigError, match=f"It is called {key} here"):
            load_config("demo_digits", [given])
