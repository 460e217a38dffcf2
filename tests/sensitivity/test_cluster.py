import os
import signal
from pathlib import Path

import pytest
import torch
from tests import strategies

import flyweight as fw
from flyweight.errors import ConfigError, PlanError
from flyweight.sensitivity import FastScanSettings, scan

ray = pytest.importorskip("ray", reason="an extra: pip install flyweight[ray]")


class Near:
    """How near outputs are to the truth; kills its own process once, where it is told to.

    Its fifth call is in the middle of a batch, so that something is lost.
    """

    def __init__(self, marker: Path | None = None):
        self.marker, self.home, self.calls = marker, os.getpid(), 0

    def __call__(self, outputs, batch):
        self.calls += 1
        away = os.getpid() != self.home
        if self.marker is not None and away and self.calls == 5 and not self.marker.exists():
            self.marker.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return -(outputs - batch[1]).square().mean(1)


def made(count=6):
    model = strategies.OneNumber().double().eval()
    torch.manual_seed(1)
    pairs = [torch.randn(2, n, dtype=torch.float64) for n in [48, 1] * count]
    images = [pair.reshape(2, 3, 4, 4) for pair in pairs[::2]]
    return model, list(zip(images, pairs[1::2], strict=True))


def test_a_cluster_that_is_not_there_is_named():
    model, data = made(1)
    graph = fw.trace(model, (data[0][0],))
    with pytest.raises(ConfigError, match="must be reachable"):
        scan(graph, model, data, Near(), ratios=(0.5,), ray="127.0.0.1:1")
    with pytest.raises(PlanError, match="fast or spread"):
        scan(graph, model, data, Near(), ratios=(0.5,), ray="auto", fast=FastScanSettings())


@pytest.fixture(scope="module")
def two_workers():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


@pytest.mark.usefixtures("two_workers")
def test_numbers_are_the_local_ones_although_a_worker_dies(tmp_path):
    model, data = made()
    graph = fw.trace(model, (data[0][0],))
    marker = tmp_path / "killed"
    local = scan(graph, model, data, Near(), ratios=(0.25, 0.5))
    spread = scan(
        graph, model, data, Near(marker), ratios=(0.25, 0.5), ray="auto", save_to=tmp_path / "s"
    )
    assert marker.exists(), "no worker was killed"
    assert spread.curves == local.curves
    assert spread.baseline == local.baseline
    assert not (tmp_path / "s.parts").exists()


@pytest.mark.usefixtures("two_workers")
def test_what_is_known_is_not_done_again(tmp_path):
    model, data = made()
    graph = fw.trace(model, (data[0][0],))
    path = tmp_path / "s"

    def broken():
        yield from data[:3]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan(graph, model, broken(), Near(), ratios=(0.5,), save_to=path)
    before = {part.name: part.stat().st_mtime_ns for part in tmp_path.glob("s.parts/batch-*")}
    assert len(before) == 3
    seen = {}

    def watched():
        yield from data
        parts = tmp_path.glob("s.parts/batch-*")
        seen.update({part.name: part.stat().st_mtime_ns for part in parts})

    found = scan(graph, model, watched(), Near(), ratios=(0.5,), ray="auto", save_to=path)
    assert found.curves == scan(graph, model, data, Near(), ratios=(0.5,)).curves
    assert {name: seen[name] for name in before} == before
