import pytest
import torch
from tests import strategies

import flyweight as fw
from flyweight.errors import DataError
from flyweight.sensitivity import RATIOS, FastScanSettings, scan
from flyweight.sensitivity.evaluator import MeanMetric

THOROUGH = FastScanSettings(max_drop=0.05, precision=0.0, first=10**6)


def near(outputs, batch):
    """Return how near the outputs are to the truth, within 0..1, image by image."""
    return torch.exp(-(outputs - batch[1]).square().mean(1))


def made(count, seed=0):
    """Return a network and batches of two whose truth is what the network says, nearly."""
    torch.manual_seed(seed)
    model = strategies.OneNumber().double().eval()
    images = torch.randn(2 * count, 3, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        truth = model(images) + 0.1 * torch.randn(2 * count, 1, dtype=torch.float64)
    return model, list(zip(images.split(2), truth.split(2), strict=True))


def test_with_all_pictures_the_numbers_are_those_of_the_exact_scan():
    model, data = made(6)
    graph = fw.trace(model, (data[0][0],))
    exact = scan(graph, model, data, near, ratios=RATIOS)
    fast = scan(graph, model, data, near, ratios=RATIOS, fast=THOROUGH)
    assert fast.baseline == pytest.approx(exact.baseline, rel=1e-12)
    points = 0
    for layer, curve in fast.curves.items():
        values = {point.ratio: point.value for point in exact.curves[layer]}
        for point in curve:
            assert point.value == pytest.approx(values[point.ratio], rel=1e-9)
            low, high = point.interval
            assert low <= point.value <= high
            points += 1
        assert len(curve) < len(values)
    assert points < 0.7 * sum(map(len, exact.curves.values()))
    ratios, known = fast.ratios(0.05), exact.ratios(0.05)
    assert all(abs(ratios.get(name, 0) - known[name]) <= 0.1 for name in known)


def test_pictures_that_are_not_needed_are_not_looked_at():
    model, data = made(60)
    seen = []

    def watched(outputs, batch):
        seen.append(float(batch[0].sum()))
        return near(outputs, batch)

    graph = fw.trace(model, (data[0][0],))
    fast_settings = FastScanSettings(max_drop=0.05, precision=0.5, first=16)
    found = scan(graph, model, data, watched, ratios=(0.5,), fast=fast_settings)
    assert len(set(seen)) == 8
    assert all(point.interval for points in found.curves.values() for point in points)


def test_intervals_hold_the_value_of_all_pictures_nearly_always():
    held = []
    for seed in range(6):
        model, data = made(60, seed)
        graph = fw.trace(model, (data[0][0],))
        exact = scan(graph, model, data, near, ratios=(0.5,))
        some = scan(graph, model, data[:12], near, ratios=(0.5,), fast=THOROUGH)
        for layer, (point,) in some.curves.items():
            loss = (exact.baseline - exact.curves[layer][0].value) - (some.baseline - point.value)
            held.append(abs(loss) <= (point.interval[1] - point.interval[0]) / 2)
    assert sum(held) >= 0.85 * len(held)


class CutOffError(Exception):
    pass


class Interrupted:
    def __init__(self, data, after):
        self.data, self.after = data, after

    def __iter__(self):
        for place, batch in enumerate(self.data):
            if place == self.after:
                raise CutOffError
            yield batch


def test_a_fast_scan_that_was_cut_off_goes_on(tmp_path):
    model, data = made(12)
    graph = fw.trace(model, (data[0][0],))
    whole = scan(graph, model, data, near, ratios=RATIOS, fast=THOROUGH)
    path, seen = tmp_path / "sens.json", []

    def watched(outputs, batch):
        seen.append(batch)
        return near(outputs, batch)

    with pytest.raises(CutOffError):
        scan(graph, model, Interrupted(data, 5), near, ratios=RATIOS, fast=THOROUGH, save_to=path)
    again = scan(graph, model, data, watched, ratios=RATIOS, fast=THOROUGH, save_to=path)
    assert again.curves == whole.curves
    points = sum(map(len, whole.curves.values()))
    first = sum(len(curve) > 0 for curve in whole.curves.values())
    assert len(seen) < 12 * points + 12 * 6 - 5 * first
    with pytest.raises(CutOffError):
        scan(graph, model, Interrupted(data, 2), near, ratios=RATIOS, save_to=path)
    with pytest.raises(DataError, match="the settings that it began with"):
        scan(graph, model, data, near, ratios=RATIOS, fast=THOROUGH, save_to=path)


def test_batches_must_be_there_again():
    model, data = made(2)
    graph = fw.trace(model, (data[0][0],))
    with pytest.raises(DataError, match="can be used only once"):
        scan(graph, model, iter(data), near, ratios=(0.5,), fast=THOROUGH)
    with pytest.raises(DataError, match="Received no batch"):
        scan(graph, model, [], near, ratios=(0.5,), fast=THOROUGH)


class Shares:
    """An evaluator whose metric is a share: of a batch's images that are right, levelled."""

    primary = "share"

    def forward(self, model, batch):
        return model(batch[0])

    def decode(self, outputs, batch):
        return (near(outputs, batch) * batch[2]).reshape(-1)

    def metric(self):
        return MeanMetric(self.primary)


def test_values_are_within_what_the_metric_can_be():
    model, data = made(24)
    # The first images have another level of the metric than the others.
    levels = [1.0] * 6 + [0.05] * 18
    shares = [(*batch, level) for batch, level in zip(data, levels, strict=True)]
    graph = fw.trace(model, (data[0][0],))
    rough = FastScanSettings(max_drop=0.05, precision=0.02, first=12)
    found = scan(graph, model, shares, Shares(), ratios=(0.3, 0.6, 0.9), fast=rough)
    exact = scan(graph, model, shares, Shares(), ratios=(0.3, 0.6, 0.9))
    for layer, curve in found.curves.items():
        known = exact.losses(layer)
        for point in curve:
            low, high = point.interval
            assert 0 <= low <= point.value <= high <= 1
            assert found.losses(layer)[point.ratio] == pytest.approx(known[point.ratio], abs=0.25)


def test_too_few_images_are_named(recorded_progress):
    model, data = made(6)
    graph = fw.trace(model, (data[0][0],))
    told = {"ratios": (0.5,), "fast": THOROUGH, "progress": recorded_progress}
    scan(graph, model, data, near, **told)
    assert recorded_progress.notes[0].startswith("note: the fast mode evaluated 100% of all cuts")
