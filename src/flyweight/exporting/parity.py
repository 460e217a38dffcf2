"""Parity: errors of the outputs of an exported file against those of PyTorch.

The error of an output is its largest difference divided by PyTorch's largest magnitude. Detections
are compared as sets, because detections of equal score have no defined order, and the last bit of a
number decides whether two boxes are suppressed whose overlap equals the threshold.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

_BORDERLINE = 0.02  # share of detections that may differ because an overlap equals the threshold
_TIED = 0.5  # share that may differ where many scores are equal: suppression keeps some of them
_MANY = 8  # more detections of one score than this come from a network that is not trained
_TIES = 0.005  # share of labels that may differ because the two best scores are almost equal
_HUGE = 1e37  # numbers beyond stand for infinity; the largest of float32 is 3.4e38
_SEARCH = 10.0  # detections up to this many tolerances apart are recognised as the same one

Outputs = Mapping[str, Tensor]


def value_errors(expected: Outputs, received: Outputs) -> dict[str, float]:
    """Return the relative error of every output; see `relative_error`."""
    return {name: relative_error(expected[name], received[name]) for name in expected}


def distance_errors(expected: Outputs, received: Outputs) -> dict[str, float]:
    """Return of every output the length of the difference divided by the length of PyTorch's.

    For networks on integers, where single values may differ much and all together little.

    Returns:
        Infinite where shapes differ or a value is not finite.
    """
    return {name: _distance(expected[name], received[name]) for name in expected}


def _distance(expected: Tensor, received: Tensor) -> float:
    if expected.shape != received.shape:
        return math.inf
    wanted, got = _real(expected), _real(received)
    distance = float((wanted - got).norm() / wanted.norm().clamp_min(1e-12))
    return distance if math.isfinite(distance) else math.inf


def label_errors(expected: Outputs, received: Outputs) -> dict[str, float]:
    """Return the share of labels that differ, if almost equal scores cannot explain it.

    Args:
        expected: PyTorch's outputs, whole numbers of any shape.
        received: The file's outputs.

    Returns:
        0 where at most `_TIES` of the labels differ; infinite where shapes differ.
    """
    return {name: _label_error(expected[name], received[name]) for name in expected}


def _label_error(expected: Tensor, received: Tensor) -> float:
    if expected.shape != received.shape:
        return math.inf
    share = float((expected != received).double().mean()) if expected.numel() else 0.0
    return share if share > _TIES else 0.0


def relative_error(expected: Tensor, received: Tensor) -> float:
    """Return max |expected - received| / max |expected|.

    Infinities, and numbers near the largest that float32 has (both serve as masks), are equal where
    both sides have the same; so are values that are not numbers. The magnitudes are those of the
    others.

    Returns:
        Infinity where shapes or the places of such values differ, and where there is nothing but
        zeros beside values that are not numbers.

    Example:
        >>> relative_error(torch.tensor([1.0, -4.0]), torch.tensor([1.0, -3.0]))
        0.25
        >>> relative_error(torch.tensor([1.0, -torch.inf]), torch.tensor([0.5, -torch.inf]))
        0.5
    """
    if expected.shape != received.shape:
        return math.inf
    wanted, got = (_real(one) for one in (expected, received))
    marks = _marks(wanted)
    if not torch.equal(marks, _marks(got)):
        return math.inf
    undefined = bool(wanted.isnan().any())
    wanted, got = wanted[marks == 0], got[marks == 0]
    if undefined and not wanted.any():
        return math.inf  # No number is left that could show a fault.
    if wanted.numel() == 0:
        return 0.0
    difference = float((wanted - got).abs().max())
    scale = float(wanted.abs().max())
    return difference / scale if scale > 0 else difference


def _real(values: Tensor) -> Tensor:
    return (torch.view_as_real(values) if values.is_complex() else values).double()


def _marks(values: Tensor) -> Tensor:
    """Return 0 for plain numbers, and what each of the others is."""
    marks = torch.where(values.abs() > _HUGE, values.sign(), 0.0)
    return torch.where(values.isnan(), 2.0, marks)


def detection_errors(expected: Outputs, received: Outputs, tolerance: float) -> dict[str, float]:
    """Return the errors of padded detections, compared as sets.

    Args:
        expected: PyTorch's outputs: boxes `(..., keep, 4)`, scores `(..., keep)` and labels
            `(..., keep)` with -1 for padding, in this order, `...` being a batch or nothing. Of
            further outputs, those with more axes (masks) are compared like the scores; the others
            follow from these.
        received: The file's outputs.
        tolerance: Relative. Detections up to ten tolerances apart count as the same one, with an
            error; detections farther apart as different ones.

    Returns:
        For the boxes and the scores: largest relative error of detections found in both. For the
        labels: share of detections found in one only, where it exceeds what threshold ties
        explain. All infinite where shapes differ.
    """
    names = list(expected)[:3]
    more = [name for name in list(expected)[3:] if expected[name].dim() > 2]
    errors = dict.fromkeys(expected, 0.0)
    if any(expected[name].shape != received[name].shape for name in expected):
        return dict.fromkeys(expected, math.inf)
    unmatched = tied = total = 0
    for ours, theirs in zip(_images(expected, more), _images(received, more), strict=True):
        pairs = _match(ours, theirs, _SEARCH * tolerance)
        if pairs:
            rows, columns = (list(side) for side in zip(*pairs, strict=True))
            for name, distances in zip(names, _distances(ours, theirs), strict=False):
                errors[name] = max(errors[name], float(distances[rows, columns].max()))
            for place, name in enumerate(more):
                gap = relative_error(ours.more[place][rows], theirs.more[place][columns])
                errors[name] = max(errors[name], gap)
        for image, seen in ((ours, [one for one, _ in pairs]), (theirs, [o for _, o in pairs])):
            alone = _unexplained(image, seen, tolerance)
            equal = _tied(image, tolerance)
            unmatched += int((alone & ~equal).sum())
            tied += int((alone & equal).sum())
        total += len(ours.scores) + len(theirs.scores)
    if unmatched > _BORDERLINE * total or unmatched + tied > _TIED * total:
        errors[names[2]] = (unmatched + tied) / total
    return errors


def set_errors(
    expected: Outputs, received: Outputs, sets: Sequence[Sequence[str]], tolerance: float
) -> dict[str, float]:
    """Return the errors of outputs some of which are sets of rows.

    Networks that propose regions choose and order them by scores. Scores that differ in the last
    bit move a row to another place, or replace it by another region.

    Args:
        expected: PyTorch's outputs.
        received: The file's outputs.
        sets: Names of outputs `(n, rows, ...)` whose rows belong together.
        tolerance: Relative. Rows up to ten tolerances apart count as the same one, with an error;
            rows farther apart as different ones.

    Returns:
        For an output of a set: largest relative error of rows found in both, or the share of rows
        found in one only, where it exceeds what ties explain. For the others see `value_errors`.
    """
    members = {name for names in sets for name in names}
    alone = {name: expected[name] for name in expected if name not in members}
    errors = value_errors(alone, received)
    for names in sets:
        errors |= _row_errors(expected, received, names, tolerance)
    return {name: errors[name] for name in expected}


def _row_errors(
    expected: Outputs, received: Outputs, names: Sequence[str], tolerance: float
) -> dict[str, float]:
    if any(expected[name].shape != received[name].shape for name in names):
        return dict.fromkeys(names, math.inf)
    errors = dict.fromkeys(names, 0.0)
    unmatched = total = 0
    for image in range(len(expected[names[0]])):
        ours = {name: expected[name][image] for name in names}
        theirs = {name: received[name][image] for name in names}
        pairs = _same_rows(ours, theirs, _SEARCH * tolerance)
        rows, columns = [one for one, _ in pairs], [other for _, other in pairs]
        for name in names:
            gap = relative_error(ours[name][rows], theirs[name][columns])
            errors[name] = max(errors[name], gap)
        total += len(ours[names[0]])
        unmatched += len(ours[names[0]]) - len(pairs)
    if unmatched > _BORDERLINE * total:
        errors[names[0]] = unmatched / total
    return errors


def _same_rows(ours: Outputs, theirs: Outputs, radius: float) -> Sequence[tuple[int, int]]:
    """Return the closest one-to-one pairs of rows whose every value lies within `radius`."""
    distance = torch.zeros(())
    for name, values in ours.items():
        flat, other = (one.double().reshape(len(one), -1) for one in (values, theirs[name]))
        gaps = torch.cdist(flat, other, p=math.inf) / flat.abs().max().clamp(min=1e-12)
        distance = torch.maximum(distance, gaps)
    return _nearest_pairs(distance, radius)


class _Image(NamedTuple):
    boxes: Tensor
    scores: Tensor
    labels: Tensor
    is_full: bool
    more: tuple[Tensor, ...] = ()


def _images(outputs: Outputs, more: Sequence[str]) -> list[_Image]:
    boxes, scores, labels = list(outputs.values())[:3]
    keep = labels.shape[-1]
    columns = [boxes.reshape(-1, keep, 4), scores.reshape(-1, keep), labels.reshape(-1, keep)]
    columns += [outputs[name].reshape(len(columns[0]), keep, -1) for name in more]
    images = []
    for one in zip(*columns, strict=True):
        real = one[2] >= 0
        found, scored, known, *others = (column[real] for column in one)
        kept = (found.double(), scored.double(), known)
        images.append(_Image(*kept, is_full=bool(real.all()), more=tuple(others)))
    return images


def _distances(ours: _Image, theirs: _Image) -> tuple[Tensor, Tensor]:
    """Return relative box and score errors of all pairs, each `(ours, theirs)`."""
    box_scale = ours.boxes.abs().max().clamp(min=1e-12)
    score_scale = ours.scores.max().clamp(min=1e-12)
    boxes = (ours.boxes[:, None] - theirs.boxes[None]).abs().amax(-1) / box_scale
    scores = (ours.scores[:, None] - theirs.scores[None]).abs() / score_scale
    return boxes, scores


def _match(ours: _Image, theirs: _Image, radius: float) -> Sequence[tuple[int, int]]:
    """Return the closest one-to-one pairs of equal label within `radius`, closest first."""
    if len(ours.scores) == 0 or len(theirs.scores) == 0:
        return ()
    boxes, scores = _distances(ours, theirs)
    distance = torch.maximum(boxes, scores)
    distance[ours.labels[:, None] != theirs.labels[None]] = math.inf
    return _nearest_pairs(distance, radius)


def _nearest_pairs(distance: Tensor, radius: float) -> list[tuple[int, int]]:
    """Return pairs of a row and a column of a matrix, closest first, none used twice."""
    pairs: list[tuple[int, int]] = []
    taken_ours: set[int] = set()
    taken_theirs: set[int] = set()
    for place in distance.flatten().argsort().tolist():
        one, other = divmod(place, distance.shape[1])
        if not float(distance[one, other]) <= radius:
            break
        if one not in taken_ours and other not in taken_theirs:
            pairs.append((one, other))
            taken_ours.add(one)
            taken_theirs.add(other)
    return pairs


def _tied(image: _Image, tolerance: float) -> Tensor:
    """Return which detections have the same score as many others.

    A network that is not trained gives almost equal scores, and rounding decides which of them
    survive suppression.
    """
    scores = image.scores
    if not len(scores):
        return torch.zeros(0, dtype=torch.bool)
    close = (scores[:, None] - scores[None]).abs() <= tolerance * scores.max().clamp(min=1e-12)
    return close.sum(1) > _MANY


def _unexplained(image: _Image, seen: list[int], tolerance: float) -> Tensor:
    """Return which detections have no partner, except the last ones of a full list."""
    scores = image.scores
    alone = torch.ones(len(scores), dtype=torch.bool)
    alone[seen] = False
    if image.is_full:
        alone &= scores > scores.min() + tolerance * scores.max()
    return alone
