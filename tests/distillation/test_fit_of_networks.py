from dataclasses import replace

import pytest
import torch
from tests.distillation.networks import Classifier, Segmenter, yolo

from flyweight.distillation.distillation_plan import plan_taps
from flyweight.distillation.fit_of_networks import (
    geometry_of,
    kind_of_outputs,
    require_fit,
    require_labels,
    yolo_classes,
)
from flyweight.distillation.seen_tensors import see_network
from flyweight.distillation.strategies import STRATEGIES
from flyweight.errors import ConfigError
from flyweight.zoo.detectors.yolo import COCO_GEOMETRY


def see(model, side=64):
    return see_network(model, torch.zeros(1, 3, side, side))


def test_the_kind_of_a_network_is_that_of_its_outputs():
    for model, kind in ((Classifier(), "classes"), (Segmenter(), "segments"), (yolo(), "yolo")):
        assert kind_of_outputs(model, see(model)) == kind
    assert yolo_classes(yolo(), see(yolo())) == 2
    assert yolo_classes(Classifier(), see(Classifier())) is None
    seen = see(Segmenter())
    two = replace(seen, heads=seen.heads * 2)
    assert kind_of_outputs(Segmenter(), two) == "maps"
    boxes = replace(seen.heads[0], shape=(300, 4))
    assert kind_of_outputs(Segmenter(), replace(seen, heads=(boxes,))) == "features"


def test_other_anchors_are_refused_with_the_difference():
    student, teacher = yolo(), Classifier()
    teacher.geometry = replace(COCO_GEOMETRY, strides=(32, 16, 4))
    assert geometry_of(teacher).strides == (32, 16, 4)
    plan = plan_taps(see(student), see(student))
    with pytest.raises(
        ConfigError, match=r"same strides. Received \(32, 16, 8\) and \(32, 16, 4\)"
    ):
        require_fit(student, teacher, plan, STRATEGIES["split"])
    require_fit(student, teacher, plan, STRATEGIES["pkd"])


def test_what_cannot_be_compared_is_refused():
    student, teacher = Classifier(), Segmenter()
    plan = plan_taps(see(student), see(teacher))
    with pytest.raises(ConfigError, match="the student's classes"):
        require_fit(student, teacher, plan, STRATEGIES["kl"])
    nothing = replace(plan, taps=(), outputs=())
    with pytest.raises(ConfigError, match="equally many outputs"):
        require_fit(student, teacher, nothing, STRATEGIES["kl"])
    with pytest.raises(ConfigError, match="pkd must compare features"):
        require_fit(student, teacher, nothing, STRATEGIES["pkd"])
    plan = plan_taps(see(student), see(Classifier()))
    with pytest.raises(ConfigError, match="crosskd must find heads"):
        require_fit(student, student, plan, STRATEGIES["crosskd"])


def test_other_labels_are_refused_where_outputs_are_compared():
    with pytest.raises(ConfigError, match="'b' of the student and 'c' of the teacher as class 1"):
        require_labels(("a", "b"), ("a", "c"), STRATEGIES["kl"])
    with pytest.raises(ConfigError, match="2 labels of the student and 1"):
        require_labels(("a", "b"), ("a",), STRATEGIES["kl"])
    require_labels(("a", "b"), ("a", "c"), STRATEGIES["pkd"])
    require_labels(("a", "b"), (), STRATEGIES["kl"])
