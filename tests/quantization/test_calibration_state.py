import weakref

import numpy as np
import pytest
import torch
from tests.quantization.test_dead_channels import deadened

import flyweight as fw
from flyweight.graph.example_inputs import Example
from flyweight.quantization.calibration import observe
from flyweight.quantization.calibration_state import CalibrationState, PassState
from flyweight.quantization.network import plan_of
from flyweight.quantization.placement import place
from flyweight.quantization.sites import record_sites


class KilledError(Exception):
    """In place of a kill."""


class Stream:
    """Batches that are made when they are asked for; counts the bytes that are kept of them."""

    def __init__(self, count, *, stops=None, seed=0):
        self.count, self.stops, self.seed = count, stops, seed
        self.asked, self.kept, self.most = 0, 0, 0

    def __iter__(self):
        for number in range(self.count):
            self.asked += 1
            if self.asked == self.stops:
                raise KilledError
            generator = torch.Generator().manual_seed(100 * self.seed + number)
            batch = torch.randn(2, 3, 16, 16, generator=generator)
            self.kept += batch.nbytes
            weakref.finalize(batch, self.forget, batch.nbytes)
            self.most = max(self.most, self.kept)
            yield batch
            del batch

    def forget(self, size):
        self.kept -= size


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(CalibrationState, "is_due", lambda _: True)


def examples(stream):
    class Examples:
        def __iter__(self):
            return (Example((batch,)) for batch in stream)

    return Examples()


def equal(one, other):
    assert one.batches == other.batches
    for name, observer in one.tensors.items():
        assert np.array_equal(observer.values(), other.tensors[name].values())
    for name, moments in one.channels.items():
        assert np.array_equal(moments.values(), other.channels[name].values())


@pytest.fixture
def plan(residual, images):
    return place(record_sites(residual, Example((images[:1],))))


def test_a_killed_pass_ends_with_the_same_bits(tmp_path, residual, plan, often):
    state, whole = CalibrationState(tmp_path), observe(residual, plan, examples(Stream(6)))
    with pytest.raises(KilledError):
        observe(residual, plan, examples(Stream(6, stops=5)), state=state)
    done = []
    resumed = observe(residual, plan, examples(Stream(6)), done.append, state=state)
    assert done == [5, 6]
    equal(resumed, whole)
    assert [one.suffix for one in tmp_path.iterdir()] == [".calibration"]


def test_a_state_of_other_images_and_a_damaged_one_are_left_alone(tmp_path, residual, plan, often):
    state = CalibrationState(tmp_path)
    observe(residual, plan, examples(Stream(3)), state=state)
    other, done = Stream(4, seed=1), []
    found = observe(residual, plan, examples(other), done.append, state=state)
    assert done == [1, 2, 3, 4]
    equal(found, observe(residual, plan, examples(Stream(4, seed=1))))
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    equal(observe(residual, plan, examples(Stream(4, seed=1)), state=state), found)


def test_a_killed_quantization_continues_in_its_pass(tmp_path, residual, often):
    # A dead channel, so that there are two passes.
    deadened(residual, torch.cat(list(Stream(6))))
    config = fw.QuantConfig(ranges="minmax")
    plain = fw.quantize(residual, Stream(6), config)
    assert sum(map(len, plan_of(plain).constant.values()))
    for stops in (6, 12):  # In the first pass, and in the one after the search for equal images.
        with pytest.raises(KilledError):
            fw.quantize(residual, Stream(6, stops=stops), config, state_dir=tmp_path / "state")
        assert list((tmp_path / "state").iterdir())
        again = fw.quantize(residual, Stream(6), config, state_dir=tmp_path / "state")
        assert plan_of(again).to_json() == plan_of(plain).to_json()
        for name, value in plain.state_dict().items():
            assert torch.equal(value, again.state_dict()[name])
        assert not (tmp_path / "state").exists()


def test_what_is_kept_does_not_grow_with_the_number_of_images(residual, plan):
    few, many = Stream(3), Stream(60)
    sizes = [
        sum(one.values().nbytes for one in (*found.tensors.values(), *found.channels.values()))
        for found in (observe(residual, plan, examples(stream)) for stream in (few, many))
    ]
    assert few.most == many.most <= 3 * 2 * 3 * 16 * 16 * 4
    channels = sum(len(residual.get_parameter(one.weight)) for one in plan.layers.values())
    assert sizes[0] == sizes[1] == len(plan.quantizers) * (2048 + 6) * 8 + channels * 4 * 8

    few, many = Stream(3), Stream(60)
    for stream in (few, many):
        fw.quantize(residual, stream)
    assert few.most == many.most <= 4 * 2 * 3 * 16 * 16 * 4


def test_an_iterator_is_gone_through_once(residual):
    stream = Stream(4)
    plan = plan_of(fw.quantize(residual, iter(stream)))
    assert stream.asked == 4
    assert plan.to_json() == plan_of(fw.quantize(residual, Stream(4))).to_json()


def test_states_are_read_as_they_were_written(tmp_path):
    state = CalibrationState(tmp_path / "new", seconds=1000)
    assert state.saved("key") is None
    assert not state.is_due()
    assert CalibrationState(tmp_path, seconds=0).is_due()
    state.save("key", PassState(3, "digest", {"a": torch.arange(3.0)}))
    found = state.saved("key")
    assert (found.done, found.images) == (3, "digest")
    assert torch.equal(found.values["a"], torch.arange(3.0))
    (tmp_path / "new" / "other.txt").write_text("stays")
    state.clear()
    assert [one.name for one in (tmp_path / "new").iterdir()] == ["other.txt"]
