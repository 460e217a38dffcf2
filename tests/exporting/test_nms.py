import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from flyweight.exporting.nms import Detections, survivors
from flyweight.exporting.onnx import OnnxConfig, to_onnx


class Split(nn.Module):
    """Boxes and scores that come as one tensor, `(n, anchors, 4 + classes)`."""

    def forward(self, joined):
        corner, size = joined[..., 0:2], joined[..., 2:4]
        return torch.cat([corner, corner + size], dim=-1), joined[..., 4:]


def crowd(seed, *, batch=2, anchors=150, classes=3):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(batch, anchors, 2, generator=generator) * 60
    size = 5 + 25 * torch.rand(batch, anchors, 2, generator=generator)
    return torch.cat(
        [corner, size, torch.rand(batch, anchors, classes, generator=generator)], dim=-1
    )


def overlap(one, two, offset):
    low, high = np.maximum(one[:2], two[:2]), np.minimum(one[2:], two[2:]) + offset
    inner = np.prod(np.clip(high - low, 0, None))
    areas = [np.prod(box[2:] - box[:2] + offset) for box in (one, two)]
    return inner / (sum(areas) - inner)


def brute_force(boxes, scores, *, score_threshold, iou_threshold, top_k, keep, offset):
    """Return (score, label, box) of the originals' multiclass suppression, one image."""
    found = []
    for label in range(scores.shape[1]):
        order = [i for i in np.argsort(-scores[:, label]) if scores[i, label] > score_threshold]
        kept = []
        for index in order[:top_k]:
            if all(overlap(boxes[index], boxes[j], offset) <= iou_threshold for j in kept):
                kept.append(index)
        found += [(scores[i, label], label, tuple(boxes[i])) for i in kept]
    return sorted(found, reverse=True)[:keep]


@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize(("top_k", "keep"), [(1000, 100), (20, 100), (1000, 10)])
def test_it_is_the_originals_suppression(offset, top_k, keep):
    settings = {"score_threshold": 0.3, "iou_threshold": 0.45, "top_k": top_k, "keep": keep}
    joined = crowd(seed=top_k + keep)
    boxes, scores = Split()(joined)
    out = Detections(Split(), pixel_offset=offset, **settings)(joined)
    assert [tuple(item.shape) for item in out] == [(2, keep, 4), (2, keep), (2, keep), (2,)]
    for index in range(2):
        expected = brute_force(
            boxes[index].numpy(), scores[index].numpy(), offset=offset, **settings
        )
        count = int(out[3][index])
        assert count == len(expected) > 5
        found_boxes, found_scores, found_labels = (item[index] for item in out[:3])
        for place, (score, label, box) in enumerate(expected):
            assert float(found_scores[place]) == score
            assert int(found_labels[place]) == label
            assert tuple(found_boxes[place].tolist()) == box
        assert not found_boxes[count:].any()
        assert not found_scores[count:].any()
        assert (found_labels[count:] == -1).all()


def test_nothing_strong_enough_gives_only_padding():
    joined = crowd(0)
    joined[..., 4:] *= 0.001
    boxes, scores, labels, counts = Detections(Split(), keep=7)(joined)
    assert counts.tolist() == [0, 0]
    assert not boxes.any()
    assert not scores.any()
    assert (labels == -1).all()


def test_fewer_candidates_than_kept_are_padded():
    out = Detections(Split(), keep=50, score_threshold=0.0)(crowd(0, anchors=4, classes=2))
    assert out[0].shape == (2, 50, 4)
    assert (out[3] <= 8).all()


def test_the_operator_keeps_to_the_rules_of_custom_operators():
    boxes, scores = Split()(crowd(1, batch=3, classes=1))
    torch.library.opcheck(survivors, (boxes, scores[..., 0], 0.5, 0.1))


@pytest.mark.parametrize("dynamic", [False, True])
def test_the_exported_graph_detects_the_same(card, tmp_path, dynamic):
    joined = crowd(3)
    card = card.model_copy(update={"outputs": "detections"})
    head = Detections(Split(), score_threshold=0.3, keep=40, pixel_offset=1.0)
    result = to_onnx(
        nn.Identity(),
        tmp_path / "m.onnx",
        example=(joined,),
        card=card,
        postprocess=head,
        compare_on=[(crowd(seed),) for seed in range(10, 15)],
        config=OnnxConfig(dynamic_batch=dynamic),
    )
    assert set(result.max_error) == {"boxes", "scores", "labels", "counts"}
    assert max(result.max_error.values()) < 1e-6
    assert result.operators["NonMaxSuppression"] == 1
    session = onnxruntime.InferenceSession(str(result.path))
    first = "batch" if dynamic else 2
    assert [item.shape for item in session.get_outputs()] == [
        [first, 40, 4],
        [first, 40],
        [first, 40],
        [first],
    ]
    later = crowd(99, batch=5 if dynamic else 2)
    answers = session.run(None, {"images": later.numpy()})
    for ours, theirs in zip(head(later), answers, strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-6)
