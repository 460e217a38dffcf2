import pytest
import torch
from tests import strategies

from flyweight.errors import ConfigError
from flyweight.graph import trace
from flyweight.origin import origin_of
from flyweight.pruning import plan, prune
from flyweight.pruning.verification import largest_error
from flyweight.zoo import create
from flyweight.zoo.detectors.assignment import Objects
from flyweight.zoo.detectors.box_encoding import clip, decode
from flyweight.zoo.detectors.roi_pooling import with_image_of_rows
from flyweight.zoo.detectors.two_stage_outputs import MaskOutputs

SIDE = 64
NARROW = {
    "faster_rcnn_r50": 0.125,
    "mask_rcnn_r50": 0.125,
    "cascade_rcnn_mobilenet_v3_320": 0.25,
}


def build(name, **more):
    torch.manual_seed(0)
    arguments = {"num_classes": 3, "width": NARROW[name], "proposals": 12, "samples": 16, **more}
    return create(name, **arguments)


def objects(side=SIDE):
    boxes = torch.tensor([[4.0, 4, 40, 36], [30, 20, 60, 62]])
    masks = torch.zeros(2, side, side, dtype=torch.bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
        mask[top:bottom, left:right] = True
    none = Objects(boxes[:0], torch.zeros(0, dtype=torch.int64), masks[:0])
    return (Objects(boxes, torch.tensor([0, 2]), masks), none)


@pytest.mark.slow
@pytest.mark.parametrize("name", NARROW)
def test_half_of_every_group_leaves_exactly_heads_included(name):
    model = strategies.randomised(build(name))
    inputs = (torch.rand(1, 3, SIDE, SIDE, dtype=torch.float64),)
    graph = trace(model, inputs)
    made = plan(graph, 0.5)
    assert made.exact
    assert set(made.groups) == {name for name, group in graph.prunable().items() if group.size > 1}
    touched = {member.tensor.split(".")[0] for g in made.groups.values() for member in g.members}
    assert {"backbone", "rpn", "heads"} <= touched
    assert ("mask_head" in touched) == (name == "mask_rcnn_r50")
    # What stays whole are classes, boxes and masks.
    stuck = {name for name, group in graph.groups.items() if group.reason}
    ends = ("cls_", "bbox_pred", "mask_fcn_logits")
    assert [name for name in stuck if not any(end in name for end in ends)] == []
    small = prune(model, made, verify=False)
    assert largest_error(model, small, made, inputs) <= 1e-9
    assert trace(small, inputs).cost() == made.cost(graph)
    assert made.cost(graph).params / graph.cost().params < 0.27


def test_a_detector_is_traced_without_values_and_its_groups_are_the_same():
    with torch.device("meta"):
        weightless = build("mask_rcnn_r50")
    empty = trace(weightless, (torch.empty(1, 3, SIDE, SIDE, device="meta"),))
    real = trace(build("mask_rcnn_r50"), (torch.rand(1, 3, SIDE, SIDE),))
    assert empty.fingerprint == real.fingerprint
    assert empty.cost() == real.cost()


def test_single_precision_s_last_bit_does_not_refuse_a_cut():
    # Random weights give proposals of nearly equal scores, which float32 puts in another order.
    model = build("mask_rcnn_r50", freeze_norm=False)
    graph = trace(model, (torch.rand(1, 3, SIDE, SIDE),))
    small = prune(model, plan(graph, 0.5))
    assert origin_of(small).plans


@pytest.mark.parametrize("name", NARROW)
def test_outputs_of_evaluation_have_fixed_shapes(name):
    model = build(name).eval()
    with torch.no_grad():
        found = model(torch.rand(2, 3, SIDE, SIDE))
    regions = found.regions if isinstance(found, MaskOutputs) else found
    heads = len(model.heads)
    assert regions.proposals.shape == (2, 12, 4)
    assert regions.logits.shape == (2, 12, heads, 4)
    assert regions.boxes.shape == regions.deltas.shape == (2, 12, 3 if heads == 1 else 1, 4)
    assert (regions.counts <= 12).all()
    assert regions.objectness.shape == regions.offsets.shape[:2]
    if isinstance(found, MaskOutputs):
        assert found.masks.shape == (2, 100, 14, 14)
        assert found.boxes.shape == (2, 100, 4)
        assert (found.labels[0, : int(found.counts[0])] >= 0).all()
        assert (found.labels[0, int(found.counts[0]) :] == -1).all()


def test_every_stage_of_a_cascade_looks_where_the_one_before_pointed():
    model = build("cascade_rcnn_mobilenet_v3_320").eval()
    for head in model.heads:
        torch.nn.init.normal_(head.bbox_pred.weight, std=0.2)
    images = torch.rand(1, 3, SIDE, SIDE)
    with torch.no_grad():
        found = model(images)
        maps = model.neck(model.backbone(images))
        regions = found.proposals
        for head, weight in zip(model.heads, (10.0, 20.0, 30.0), strict=True):
            last = regions
            said = head(model.pool(maps, with_image_of_rows(last)))
            moved = decode(said.deltas[:, 0], last[0], (weight, weight, weight / 2, weight / 2))
            regions = clip(moved, (SIDE, SIDE))[None]
        pooled = model.pool(maps, with_image_of_rows(last))
        logits = torch.stack([head(pooled).logits for head in model.heads], dim=1)
    torch.testing.assert_close(found.boxes[:, :, 0], regions)
    torch.testing.assert_close(found.logits[0], logits)
    assert not torch.allclose(found.proposals, regions, atol=0.5)


def test_masks_are_made_for_what_suppression_leaves():
    model = build("mask_rcnn_r50").eval()
    images = torch.rand(1, 3, SIDE, SIDE)
    with torch.no_grad():
        found = model(images)
        rois = with_image_of_rows(found.boxes[:, :5])
        features = model.heads[0].body(model.pool(model.backbone(images), rois))
        logits = model.mask_head(features)
    wanted = torch.stack([logits[row, label] for row, label in enumerate(found.labels[0, :5])])
    torch.testing.assert_close(found.masks[0, :5], wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", NARROW)
def test_training_gives_samples_that_every_parameter_learns_from(name):
    model = build(name, freeze_norm=False).train()
    samples = model(torch.rand(2, 3, SIDE, SIDE), objects())
    assert len(samples.stages) == len(model.heads)
    first = samples.stages[0]
    assert len(first.deltas) == len(first.wanted) == int((first.labels > 0).sum()) > 0
    assert len(first.labels) <= 32
    assert (samples.masks is None) == (name != "mask_rcnn_r50")
    values = [first.logits, samples.anchors.logits, samples.anchors.deltas]
    values += [part for stage in samples.stages for part in (stage.logits, stage.deltas)]
    values += [samples.masks.logits] if samples.masks else []
    sum(value.square().sum() for value in values).backward()
    without = {n for n, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert without == set()


def test_mask_targets_are_what_lies_under_the_region():
    model = build("mask_rcnn_r50").train()
    (known, none) = objects()
    whole = Objects(known.boxes, known.labels, torch.ones_like(known.masks))
    samples = model(torch.rand(2, 3, SIDE, SIDE), (whole, none))
    assert (samples.masks.wanted == 1).all()
    blank = Objects(known.boxes, known.labels, torch.zeros_like(known.masks))
    assert (model(torch.rand(2, 3, SIDE, SIDE), (blank, none)).masks.wanted == 0).all()
    assert 0.2 < model(torch.rand(2, 3, SIDE, SIDE), objects()).masks.wanted.mean() < 1


def test_letters():
    model = build("mask_rcnn_r50").train()
    with pytest.raises(ConfigError, match="must be given the images' objects"):
        model(torch.rand(1, 3, SIDE, SIDE))
    bare = tuple(one._replace(masks=None) for one in objects())
    with pytest.raises(ConfigError, match=r"must learn from masks.*data\.masks"):
        model(torch.rand(2, 3, SIDE, SIDE), bare)
