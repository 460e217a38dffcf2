import torch
from torchvision.ops import batched_nms, nms

from flyweight.zoo.detectors.suppression import best_of_each_class, keep_best, survivors


def crowd(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(*shape, 2, generator=generator) * 40
    return torch.cat([corner, corner + 5 + 20 * torch.rand(*shape, 2, generator=generator)], -1)


def test_survivors_are_torchvisions():
    boxes, scores = crowd(0, 3, 60), torch.rand(3, 60)
    mask = survivors(boxes, scores, 0.5, 0.2)
    for index in range(3):
        strong = torch.where(scores[index] > 0.2)[0]
        kept = strong[nms(boxes[index, strong], scores[index, strong], 0.5)]
        assert set(torch.where(mask[index])[0].tolist()) == set(kept.tolist())
        assert 0 < len(kept) < len(strong)


def test_survivors_have_a_shape_without_values():
    mask = survivors(torch.empty(2, 7, 4, device="meta"), torch.empty(2, 7, device="meta"), 0.5, 0)
    assert (mask.shape, mask.dtype, mask.device.type) == ((2, 7), torch.bool, "meta")


def test_boxes_of_each_class_are_taken_with_their_scores():
    boxes, scores = crowd(1, 2, 30, 3), torch.rand(2, 30, 3)
    chosen, best = best_of_each_class(boxes, scores, 5)
    assert chosen.shape == (2, 3, 5, 4)
    for image in range(2):
        for label in range(3):
            order = scores[image, :, label].argsort(descending=True)[:5]
            assert torch.equal(best[image, label], scores[image, order, label])
            assert torch.equal(chosen[image, label], boxes[image, order, label])
    shared = best_of_each_class(boxes[:, :, 0], scores, 5)[0]
    repeated = best_of_each_class(boxes[:, :, :1].expand(-1, -1, 3, -1), scores, 5)[0]
    assert torch.equal(shared, repeated)


def test_the_best_of_all_classes_are_batched_nms_s_and_the_rest_is_padding():
    boxes, scores = crowd(2, 1, 40, 3), torch.rand(1, 40, 3)
    chosen, best = best_of_each_class(boxes, scores, 40)
    mask = survivors(chosen[0], best[0], 0.4, 0.1)[None]
    found, values, labels, counts = keep_best(chosen, best, mask, 90)
    flat, classes = boxes[0].reshape(-1, 4), torch.arange(3).repeat(40)
    strong = torch.where(scores[0].flatten() > 0.1)[0]
    kept = strong[batched_nms(flat[strong], scores[0].flatten()[strong], classes[strong], 0.4)]
    count = int(counts)
    assert 0 < count == len(kept) < 90
    assert torch.equal(found[0, :count], flat[kept])
    assert torch.equal(values[0, :count], scores[0].flatten()[kept])
    assert torch.equal(labels[0, :count], classes[kept])
    assert (labels[0, count:] == -1).all()
    assert found[0, count:].abs().sum() + values[0, count:].sum() == 0
