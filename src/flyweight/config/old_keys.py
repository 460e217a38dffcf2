"""Old keys of configs: those of the original tools and of version 0.1.0, with today's keys."""

OLD_KEYS = {
    "max_iters": "train.steps",
    "snapshot_iter": "train.evaluate_every",
    "log_iter": "train.log_every",
    "worker_num": "train.num_workers",
    "LearningRate.base_lr": "train.learning_rate",
    "TrainReader.batch_size": "train.batch_size",
    "EvalReader.batch_size": "eval_batch_size",
    "YOLOv3Head.nms.score_threshold": "detect.suppression.score_threshold",
    "YOLOv3Head.nms.nms_threshold": "detect.suppression.iou_threshold",
    "YOLOv3Head.nms.keep_top_k": "detect.suppression.keep",
    "YOLOv3Head.nms.nms_top_k": "detect.suppression.top_k",
    "SSD.output_decoder.score_threshold": "detect.suppression.score_threshold",
    "SSD.output_decoder.nms_threshold": "detect.suppression.iou_threshold",
    "SSD.output_decoder.keep_top_k": "detect.suppression.keep",
    "SSD.output_decoder.nms_top_k": "detect.suppression.top_k",
    "BlazeFace.output_decoder.score_threshold": "detect.suppression.score_threshold",
    "BlazeFace.output_decoder.nms_threshold": "detect.suppression.iou_threshold",
    "BlazeFace.output_decoder.keep_top_k": "detect.suppression.keep",
    "BlazeFace.output_decoder.nms_top_k": "detect.suppression.top_k",
    "MobileNetV3.multiplier": "model_args.multiplier",
    "metric": "detect.metric",
    "use_fine_grained_loss": "distill.use_fine_grained_loss",
    "use_gpu": "train.accelerator",
}
"""Keys of the original tools, valid in overrides."""
RENAMED_KEYS = {"prune.repair_pictures": "prune.repair_images"}
"""Keys of version 0.1.0, valid in files and overrides."""


OTHER_WORDS = {
    "epochs": "train.steps (one epoch is the number of training images / train.batch_size steps)",
    "epoch": "train.steps (one epoch is the number of training images / train.batch_size steps)",
    "num_epochs": "train.steps (an epoch is the number of training images / train.batch_size)",
    "max_epochs": "train.steps (an epoch is the number of training images / train.batch_size)",
    "iterations": "train.steps",
    "steps": "train.steps",
    "lr": "train.learning_rate",
    "lr0": "train.learning_rate",
    "base_lr": "train.learning_rate",
    "learning_rate": "train.learning_rate",
    "batch": "train.batch_size",
    "batch_size": "train.batch_size",
    "bs": "train.batch_size",
    "imgsz": "input_size",
    "img_size": "input_size",
    "image_size": "input_size",
    "img": "input_size",
    "size": "input_size",
    "resolution": "input_size",
    "workers": "train.num_workers",
    "num_workers": "train.num_workers",
    "optimizer": "train.optimizer",
    "weight_decay": "train.weight_decay",
    "momentum": "train.momentum",
    "seed": "train.seed",
    "device": "train.accelerator",
    "amp": "train.precision",
    "patience": "train.patience",
    "classes": "num_classes",
    "nc": "num_classes",
    "names": "data.labels",
    "dataset": "data.root",
    "output_dir": "save_dir",
    "project": "save_dir",
    "pretrained": "pretrain_weights",
    "w": "weights",
    "weights": "weights",
}
"""Words of other tools for settings, and what a config calls them."""


def in_our_words(word: str) -> str:
    """Return a sentence on what a config calls a setting of other tools; "" for other words.

    Args:
        word: A key or an option, such as `lr`, `train.lr`, `-w` or `--batch-size`.

    Example:
        >>> in_our_words("--imgsz")
        "It is called 'input_size' here."
    """
    plain = word.lstrip("-").replace("-", "_").lower()
    found = OTHER_WORDS.get(plain) or OTHER_WORDS.get(plain.rpartition(".")[2])
    if found is None:
        return ""
    key, space, more = found.partition(" ")
    return f"It is called '{key}' here{space}{more}."


def current_key(key: str) -> str:
    """Return today's key for the key of an override.

    Example:
        >>> current_key("max_iters"), current_key("width")
        ('train.steps', 'width')
    """
    return OLD_KEYS.get(key) or RENAMED_KEYS.get(key) or key
