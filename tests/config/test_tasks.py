import subprocess
import sys
from typing import get_args

import pytest
from pydantic import ValidationError

from flyweight.config.tasks import (
    DetectConfig,
    MetricName,
    SegmentConfig,
    Suppression,
    TaskConfig,
)
from flyweight.tasks.detect import METRICS
from flyweight.tasks.losses.yolo import YoloLossSettings


def test_every_metric_that_can_be_chosen_is_there():
    assert set(get_args(MetricName)) == set(METRICS)


def test_the_defaults_are_those_of_the_loss():
    chosen, settings = DetectConfig(), YoloLossSettings()
    assert chosen.ignore_threshold == settings.ignore_threshold
    assert chosen.label_smoothing == settings.label_smoothing


def test_other_tasks_have_sections_of_their_own():
    chosen = TaskConfig.model_validate({"classify": {"label_smoothing": 0.1}, "data": "CamVid"})
    assert chosen.classify.label_smoothing == 0.1
    assert chosen.segment == SegmentConfig()
    for wrong in ({"classify": {"label_smoothing": 1}}, {"segment": {"class_weights": [-1]}}):
        with pytest.raises(ValidationError):
            TaskConfig.model_validate(wrong)


@pytest.mark.parametrize("wrong", [{"keep": 0}, {"iou_threshold": 1.5}, {"kep": 3}])
def test_what_cannot_be_meant(wrong):
    with pytest.raises(ValidationError):
        DetectConfig(suppression=Suppression.model_validate(wrong))


def test_it_is_light():
    code = "import sys, flyweight.config.tasks; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
