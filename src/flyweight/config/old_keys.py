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
    "use_gpu": "train.accelerator",
}
"""Keys of the original tools, valid in overrides."""
RENAMED_KEYS = {"prune.repair_pictures": "prune.repair_images"}
"""Keys of version 0.1.0, valid in files and overrides."""


def current_key(key: str) -> str:
    """Return today's key for the key of an override.

    Example:
        >>> current_key("max_iters"), current_key("width")
        ('train.steps', 'width')
    """
    return OLD_KEYS.get(key) or RENAMED_KEYS.get(key) or key
