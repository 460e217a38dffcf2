import pytest
import torch

from flyweight.zoo.detectors.assignment import (
    BACKGROUND,
    IGNORED,
    Objects,
    SampleLimits,
    label_rois,
    match,
    sample,
    sample_anchors,
    sample_rois,
)
from flyweight.zoo.detectors.box_encoding import encode
from flyweight.zoo.detectors.region_proposals import PLAIN, AnchorLevel, AnchorScores

OBJECTS = torch.tensor([[10.0, 10, 30, 30], [40, 40, 60, 60]])
REGIONS = torch.tensor(
    [
        [10.0, 10, 30, 30],  # the first object
        [10, 10, 30, 50],  # half of it
        [40, 40, 60, 64],  # nearly the second
        [0, 0, 5, 5],  # nothing
    ]
)


def test_matching():
    assert match(REGIONS, OBJECTS, 0.3, 0.7, best=False).tolist() == [0, IGNORED, 1, BACKGROUND]
    assert match(REGIONS, OBJECTS, 0.5, 0.5, best=False).tolist() == [0, 0, 1, BACKGROUND]
    assert match(REGIONS, OBJECTS[:0], 0.3, 0.7, best=True).tolist() == [BACKGROUND] * 4
    assert match(REGIONS[:0], OBJECTS, 0.3, 0.7, best=True).tolist() == []


def test_every_object_has_its_best_region_where_asked():
    far = torch.tensor([[28.0, 28, 44, 44], [100, 100, 110, 110]])
    assert match(far, OBJECTS, 0.3, 0.7, best=True).tolist() in ([0, BACKGROUND], [1, BACKGROUND])
    assert match(far, OBJECTS, 0.3, 0.7, best=False).tolist() == [BACKGROUND] * 2


@pytest.mark.parametrize(("positives", "expected"), [(3, (3, 13)), (40, (4, 12)), (0, (0, 16))])
def test_drawing_keeps_the_share(positives, expected):
    matched = torch.tensor([0] * positives + [BACKGROUND] * 30 + [IGNORED] * 5)
    objects, nothing = sample(matched, SampleLimits(16, 0.25))
    assert (len(objects), len(nothing)) == expected
    assert (matched[objects] >= 0).all()
    assert (matched[nothing] == BACKGROUND).all()


def test_anchors_to_learn_from():
    torch.manual_seed(0)
    anchors = AnchorLevel(16, (32.0,)).grid(5, 5)
    scores = AnchorScores(torch.randn(2, 75), torch.randn(2, 75, 4), anchors, (75,))
    objects = (Objects(OBJECTS, torch.tensor([0, 1])), Objects(OBJECTS[:0], torch.zeros(0).long()))
    found = sample_anchors(scores, objects, (80, 80))
    inside = ((anchors >= 0) & (anchors <= 80)).all(1)
    assert found.labels.sum() == len(found.deltas) == len(found.wanted) > 1
    # All that is inside is drawn: there are fewer than 256, and no more objects than half.
    matched = match(anchors[inside], OBJECTS, 0.3, 0.7, best=True)
    assert len(found.labels) == int((matched != IGNORED).sum() + inside.sum())
    chosen = torch.where(inside)[0][matched >= 0]
    wanted = encode(OBJECTS[matched[matched >= 0]], anchors[chosen], PLAIN)
    order = found.wanted[:, 0].argsort()
    torch.testing.assert_close(found.wanted[order], wanted[wanted[:, 0].argsort()])
    assert set(found.logits.tolist()) <= set(scores.objectness[:, inside].flatten().tolist())


def test_regions_to_learn_from_include_the_objects():
    torch.manual_seed(0)
    objects = Objects(OBJECTS, torch.tensor([4, 7]))
    found = sample_rois(REGIONS[3:], objects, 0.5, SampleLimits(8, 0.5))
    rows = sorted(zip(found.boxes.tolist(), found.labels.tolist(), strict=True))
    assert rows == [([0, 0, 5, 5], 0), ([10, 10, 30, 30], 5), ([40, 40, 60, 60], 8)]
    places = found.places[found.labels > 0]
    assert torch.equal(objects.boxes[places], found.wanted[found.labels > 0])
    assert torch.equal(found.wanted[found.labels == 0], found.boxes[found.labels == 0])


def test_all_regions_of_a_later_stage_are_labelled():
    found = label_rois(REGIONS, Objects(OBJECTS, torch.tensor([4, 7])), 0.6)
    assert torch.equal(found.boxes, REGIONS)
    assert found.labels.tolist() == [5, 0, 8, 0]
    empty = label_rois(REGIONS, Objects(OBJECTS[:0], torch.zeros(0).long()), 0.6)
    assert empty.labels.tolist() == [0] * 4
