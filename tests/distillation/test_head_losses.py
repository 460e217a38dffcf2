import math

import pytest
import torch

from flyweight.distillation import dkd, kl, l2_distill, split_distill
from flyweight.distillation.head_losses import anchor_parts, split_terms
from flyweight.errors import ConfigError


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def entropy(logit, wanted):
    found = sigmoid(logit)
    return -(wanted * math.log(found) + (1 - wanted) * math.log(1 - found))


def softmax(values):
    total = sum(math.exp(value) for value in values)
    return [math.exp(value) / total for value in values]


def test_kl_of_two_classes_by_hand():
    # Teacher 3:1 at temperature 1, student 1:1: 0.75 log(0.75/0.5) + 0.25 log(0.25/0.5).
    teacher, student = torch.tensor([[math.log(3.0), 0.0]]), torch.zeros(1, 2)
    wanted = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert kl(student, teacher).item() == pytest.approx(wanted, rel=1e-6)
    # At temperature 2 the shares are sqrt(3):1, and the sum counts 4 times.
    share = math.sqrt(3) / (1 + math.sqrt(3))
    warm = 4 * (share * math.log(share / 0.5) + (1 - share) * math.log((1 - share) / 0.5))
    assert kl(student, teacher, temperature=2.0).item() == pytest.approx(warm, rel=1e-6)


def test_kl_and_dkd_have_the_numbers_of_the_published_code(scores):
    # mdistiller at commit a08d46f: kd_loss and dkd_loss, on the same scores.
    student, teacher, labels = scores
    assert kl(student, teacher, 4.0).item() == pytest.approx(1.9973621368, rel=1e-5)
    assert kl(student, teacher, 1.0).item() == pytest.approx(1.4212330580, rel=1e-5)
    assert dkd(student, teacher, labels).item() == pytest.approx(14.7064352036, rel=1e-5)
    for beta, wanted in ((0.5, 1.1053194999694824), (0.0, 0.47634947299957275)):
        found = dkd(student, teacher, labels, beta=beta, temperature=1.0)
        assert found.item() == pytest.approx(wanted, rel=1e-5)


def test_dkd_with_the_teachers_own_share_as_weight_is_kl(scores):
    # KL = KL(b) + (1 - p_label) KL(q), equation 6 of the paper, for each image.
    student, teacher, labels = scores
    for row in range(4):
        one = slice(row, row + 1)
        others = 1 - teacher[one].softmax(dim=1)[0, labels[row]].item()
        found = dkd(student[one], teacher[one], labels[one], beta=others, temperature=1.0)
        assert found.item() == pytest.approx(kl(student[one], teacher[one]).item(), rel=1e-4)


def test_kl_of_maps_is_the_mean_over_the_pixels_that_count():
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 3, 2, 2, generator=generator) for _ in range(2))
    mask = torch.tensor([[[True, False], [False, False]], [[True, True], [False, False]]])
    places = [(0, 0, 0), (1, 0, 0), (1, 0, 1)]
    wanted = 0.0
    for image, row, column in places:
        ours = softmax(student[image, :, row, column].tolist())
        theirs = softmax(teacher[image, :, row, column].tolist())
        wanted += sum(q * math.log(q / p) for p, q in zip(ours, theirs, strict=True)) / 3
    assert kl(student, teacher, mask=mask).item() == pytest.approx(wanted, rel=1e-5)
    # A mask of the image's size is read at the centres of the map's positions.
    large = mask.repeat_interleave(4, dim=1).repeat_interleave(4, dim=2)
    assert kl(student, teacher, mask=large).item() == pytest.approx(wanted, rel=1e-5)
    assert kl(student, teacher, mask=torch.zeros_like(mask)).item() == 0


def test_l2_distill_by_hand():
    student = [torch.zeros(1, 2, 1, 1), torch.ones(1, 1, 2, 2)]
    teacher = [torch.tensor([1.0, 3.0]).view(1, 2, 1, 1), torch.full((1, 1, 2, 2), 3.0)]
    # (1 + 9) / 2 + 4, times 100.
    assert l2_distill(student, teacher).item() == pytest.approx(900.0)
    assert l2_distill(student, teacher, weight=1.0).item() == pytest.approx(9.0)


def split_by_hand(student, teacher, anchors, classes):
    """Section 1.6 of the fact sheet, one value after the other."""
    total = 0.0
    for ours, theirs in zip(student, teacher, strict=True):
        count, _, height, width = ours.shape
        cells = count * anchors * height * width
        for image in range(count):
            for anchor in range(anchors):
                for row in range(height):
                    for column in range(width):
                        at = slice(anchor * (5 + classes), (anchor + 1) * (5 + classes))
                        s = ours[image, at, row, column].tolist()
                        t = theirs[image, at, row, column].tolist()
                        weight = sigmoid(t[4])
                        reg = entropy(s[0], sigmoid(t[0])) + entropy(s[1], sigmoid(t[1]))
                        reg += abs(s[2] - t[2]) + abs(s[3] - t[3])
                        cls = sum(entropy(a, sigmoid(b)) for a, b in zip(s[5:], t[5:], strict=True))
                        obj = entropy(s[4], 1.0 if t[4] > 0 else 0.0)
                        total += (reg * weight + cls * weight / classes + obj) / cells
    return total


def test_split_distill_by_hand():
    generator = torch.Generator().manual_seed(1)
    shapes = [(2, 2 * 8, 2, 3), (2, 2 * 8, 1, 2)]
    student, teacher = (
        [torch.randn(shape, generator=generator) for shape in shapes] for _ in range(2)
    )
    wanted = split_by_hand(student, teacher, 2, 3)
    assert split_distill(student, teacher, 3).item() == pytest.approx(1000 * wanted, rel=1e-5)
    assert split_distill(student, teacher, 3, weight=2.0).item() == pytest.approx(2 * wanted)
    terms = split_terms(student, teacher, 3)
    assert list(terms) == ["reg", "cls", "obj"]
    assert sum(term.item() for term in terms.values()) == pytest.approx(wanted, rel=1e-5)


def test_split_distill_of_one_anchor_with_plain_numbers():
    # Every logit 0: reg = 2 log 2 * s(0), cls = log 2 * s(0), obj = log 2 (0 is not above 0).
    student = teacher = [torch.zeros(1, 6, 1, 1)]
    wanted = 1000 * math.log(2) * (2 * 0.5 + 0.5 + 1)
    assert split_distill(student, teacher, 1).item() == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("loss", [l2_distill, lambda s, t: split_distill(s, t, 1)])
def test_the_teacher_gets_no_gradient(loss):
    student, teacher = ([torch.randn(1, 6, 2, 2, requires_grad=True)] for _ in range(2))
    loss(student, teacher).backward()
    assert student[0].grad is not None
    assert student[0].grad.abs().sum() > 0
    assert teacher[0].grad is None


def test_scores_teach_without_a_gradient_of_the_teacher(scores):
    student, teacher = (each.clone().requires_grad_() for each in scores[:2])
    (kl(student, teacher) + dkd(student, teacher, scores[2])).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


def test_what_does_not_fit_is_refused_with_both_shapes():
    with pytest.raises(ConfigError, match=r"\(2, 3\) and \(2, 4\)"):
        kl(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ConfigError, match="Received 1 and 2"):
        l2_distill([torch.zeros(1, 6, 1, 1)], [torch.zeros(1, 6, 1, 1)] * 2)
    with pytest.raises(ConfigError, match="Received one tensor and 1"):
        l2_distill(torch.zeros(1, 6, 1, 1), [torch.zeros(1, 6, 1, 1)])
    with pytest.raises(ConfigError, match=r"multiple of 7\. Received 6"):
        split_distill([torch.zeros(1, 6, 1, 1)], [torch.zeros(1, 6, 1, 1)], 2)
    assert anchor_parts(torch.zeros(1, 12, 2, 3), 1).shape == (1, 2, 6, 2, 3)
