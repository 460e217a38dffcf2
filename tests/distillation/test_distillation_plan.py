import pytest
import torch
from tests.distillation.networks import Classifier, Segmenter, pruned, yolo
from torch import nn

from flyweight.distillation.distillation_plan import plan_named, plan_taps
from flyweight.distillation.seen_tensors import see_network
from flyweight.errors import PlanError


def see(model, side=32):
    return see_network(model.eval(), torch.zeros(1, 3, side, side))


def pairs(plan):
    return [(tap.place, tap.student.operation, tap.teacher.operation) for tap in plan.taps]


def test_a_pruned_network_is_compared_with_the_dense_one_by_name():
    dense = Classifier()
    plan = plan_taps(see(pruned(dense)), see(dense))
    assert plan.same_names
    assert pairs(plan) == [
        ("stage", "layer0.1.relu.relu#2", "layer0.1.relu.relu#2"),
        ("head", "layer1.1.relu.relu#2", "layer1.1.relu.relu#2"),
    ]
    assert all(tap.widens for tap in plan.taps)
    assert [pair.student.place for pair in plan.outputs] == ["output"]


def test_a_deeper_teacher_is_compared_at_the_ends_of_its_own_stages():
    plan = plan_taps(see(Classifier(blocks=1)), see(Classifier(blocks=3, width=12)))
    assert not plan.same_names
    assert pairs(plan) == [
        ("stage", "layer0.0.relu.relu#2", "layer0.2.relu.relu#2"),
        ("head", "layer1.0.relu.relu#2", "layer1.2.relu.relu#2"),
    ]


def test_another_input_size_does_not_change_the_choice():
    small, large = (see(Classifier(), side) for side in (32, 64))
    plan = plan_taps(small, large)
    assert pairs(plan) == pairs(plan_taps(small, small))
    assert plan.taps[0].teacher.shape[-1] == 2 * plan.taps[0].student.shape[-1]


def test_a_detector_is_compared_at_its_backbone_and_before_its_heads():
    student, teacher = see(yolo(), 64), see(yolo("yolov3_r34"), 64)
    plan = plan_taps(student, teacher)
    assert [tap.student.stride for tap in plan.features(["stage"])] == [4, 8, 16, 32]
    assert [tap.name for tap in plan.features(["head"])] == [
        f"yolo_block.{index}.tip.activation.leaky_relu" for index in range(3)
    ]
    # CrossKD leaves the student's head two convolutions earlier, at the same places.
    assert [one.tap.student.stride for one in plan.crossings] == [32, 16, 8]
    assert [one.tap.name for one in plan.crossings] == [
        f"yolo_block.{index}.2.activation.leaky_relu" for index in range(3)
    ]
    assert [len(one.modules) for one in plan.crossings] == [4, 4, 4]
    assert "backbone.res5c.relu" in str(plan)


def test_a_segmenter_is_compared_before_its_scores():
    plan = plan_taps(see(Segmenter()), see(Segmenter(width=9)))
    assert [(tap.place, tap.name) for tap in plan.taps] == [
        ("stage", "deep.1.relu"),
        ("head", "up.1.relu"),
    ]
    # The scores are resized after the layer, so a head cannot be crossed.
    assert plan.outputs[0].crossed is None


def test_networks_of_tokens_are_compared_at_their_last_tokens():
    class Tokens(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.embed = nn.Conv2d(3, width, 8, 8)
            self.blocks = nn.Sequential(nn.Linear(width, width), nn.Linear(width, width))
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 2)

        def forward(self, x):
            tokens = self.blocks(self.embed(x).flatten(2).transpose(1, 2))
            return self.head(self.norm(tokens)[:, 0])

    plan = plan_taps(see(Tokens(6)), see(Tokens(10)))
    assert [(tap.name, tap.widens) for tap in plan.taps] == [("norm.layer_norm", True)]


def test_networks_with_other_numbers_of_outputs_have_features_alone():
    plan = plan_taps(see(yolo(), 64), see(Segmenter(), 64))
    assert plan.outputs == ()
    assert plan.taps


def test_taps_can_be_named_by_operation_and_by_module():
    seen = see(Classifier())
    plan = plan_named(seen, seen, ["layer0", ("layer0.0.conv1.conv2d", "layer0.1.conv1")])
    assert pairs(plan) == [
        ("stage", "layer0.1.relu.relu#2", "layer0.1.relu.relu#2"),
        ("stage", "layer0.0.conv1.conv2d", "layer0.1.conv1.conv2d"),
    ]
    with pytest.raises(PlanError, match=r"'layer9', which the student does not have"):
        plan_named(seen, seen, ["layer9"])
    with pytest.raises(PlanError, match="maps at 'stem' of the student and vectors at 'fc'"):
        plan_named(seen, seen, [("stem", "fc")])


def test_a_detector_of_two_stages_is_compared_at_its_pyramid():
    class Regions(nn.Module):
        """Maps of two sizes, and boxes whose number would depend on the image."""

        def __init__(self):
            super().__init__()
            self.stem, self.deep = nn.Conv2d(3, 4, 2, 2), nn.Conv2d(4, 4, 2, 2)
            self.propose, self.refine = nn.Conv2d(4, 4, 1), nn.Linear(4, 4)

        def forward(self, x):
            fine = self.stem(x)
            boxes = self.propose(self.deep(fine)).flatten(2).transpose(1, 2)[0]
            return self.refine(boxes)[None]

    seen = see(Regions(), 16)
    assert seen.find("refine.linear") is None  # It has a row per box, not per image.
    plan = plan_taps(seen, seen)
    assert [(tap.place, tap.student.stride) for tap in plan.taps] == [("stage", 2), ("stage", 4)]
    assert plan.features(["head"]) == plan.taps
