import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.nn.modules import module as all_modules

from flyweight.graph import trace
from flyweight.graph.dispatch import evaluating
from flyweight.graph.recorder import Recorder, module_paths

WHOLE = frozenset(["conv2d", "relu", "mul", "chunk"])
IMAGE = torch.rand(1, 3, 4, 4)


def recorded(run, *models, whole=WHOLE):
    recorder = Recorder(whole)
    for model in models:
        recorder.number_stored(model)
    with evaluating(*models), recorder:
        run()
    return recorder


def test_tensors_have_numbers_and_shared_ones_have_several_names():
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
    model[1].weight = model[0].weight
    recorder = recorded(lambda: model(IMAGE), model)
    assert recorder.stored["0.weight"] == recorder.stored["1.weight"]
    first, second = recorder.calls
    assert first.args[1] == second.args[1] == recorder.value(model[0].weight)
    assert second.reads[0] == first.result.number
    assert recorder.number_of(torch.rand(1)) is None


def test_what_is_written_in_place_gets_a_new_number():
    x = torch.rand(3)
    recorder = Recorder(WHOLE)
    with torch.inference_mode(), recorder:
        y = (x * 2).relu_()
        left, _ = y.chunk(2)
    made, changed, parts = recorder.calls
    assert [call.op for call in recorder.calls] == ["mul", "relu", "chunk"]
    assert changed.reads == made.makes
    assert changed.makes != made.makes
    assert parts.reads == changed.makes
    assert recorder.number_of(left) == parts.makes[0]
    assert any(tensor is y for tensor in recorder.seen())


def test_numbers_of_tensors_that_are_gone_are_not_used_again():
    recorder = Recorder(WHOLE)
    with torch.inference_mode(), recorder:
        x = torch.ones(2)
        for _ in range(5):
            x = x * 2
    numbers = [call.makes[0] for call in recorder.calls if call.op == "mul"]
    assert len(set(numbers)) == 5


class Nested(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.ReLU())
        self.same = self.inner[0]

    def forward(self, x):
        return self.same(self.inner(x * 1) * 2)


def test_paths_of_modules():
    model = Nested()
    with module_paths(model, "around") as path:
        recorder = Recorder(WHOLE, path)
        with torch.inference_mode(), recorder:
            model(IMAGE * 3)
        assert path == ["around"]
    where = [call.where for call in recorder.calls if call.op in WHOLE]
    assert where == ["around", "", "inner.0", "", "inner.0"]


def test_modules_are_as_before_even_after_a_failure():
    model = Nested()
    own = model.inner[0].forward = lambda x: x.no_such_method()
    with pytest.raises(AttributeError), module_paths(model) as path:
        model(IMAGE)
    assert path == [""]
    assert "forward" not in vars(model)
    assert model.inner[0].forward is own


class Attending(nn.Module):
    """Fuses into one operation unless told otherwise, and asks for a value, so that it can."""

    def __init__(self, heads):
        super().__init__()
        self.stem = nn.Linear(8, 8)
        self.layer = nn.TransformerEncoderLayer(8, heads, 16, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.layer(self.stem(x))) if x.sum() > 0 else x


def convolutions(width):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Conv2d(width, 4, 1))


def facts(graph):
    groups = {name: (group.size, group.reason, group.mixes) for name, group in graph.groups.items()}
    return groups, graph.fingerprint, graph.operations, dict(graph.numbers)


def test_two_threads_that_trace_at_once_are_both_right():
    work = [
        (Attending(2), (torch.ones(1, 5, 8),)),
        (Attending(4), (torch.ones(2, 3, 8),)),
        (convolutions(8), (torch.rand(1, 3, 9, 9),)),
        (convolutions(6), (torch.rand(1, 3, 12, 12),)),
    ]
    alone = [facts(trace(model, args)) for model, args in work]
    ready = threading.Barrier(len(work))

    def traced(model, args):
        ready.wait()
        return [facts(trace(model, args)) for _ in range(4)]

    with ThreadPoolExecutor(len(work)) as pool:
        together = [pool.submit(traced, *one) for one in work]
        for expected, found in zip(alone, together, strict=True):
            assert found.result() == [expected] * 4


def test_a_trace_does_not_reach_the_networks_of_other_threads():
    entered, go_on = threading.Event(), threading.Event()

    class Waiting(nn.Module):
        """Stops in the middle of a trace."""

        def __init__(self):
            super().__init__()
            self.attending = Attending(2)

        def forward(self, x):
            entered.set()
            assert go_on.wait(60)
            return self.attending(x)

    class Names(Recorder):
        pass

    own = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    enabled = torch.backends.mha.get_fastpath_enabled()
    with ThreadPoolExecutor(1) as other:
        graph = other.submit(trace, Waiting(), (torch.ones(1, 5, 8),))
        assert entered.wait(60)
        try:
            assert torch.backends.mha.get_fastpath_enabled() == enabled
            assert not all_modules._global_forward_hooks
            assert not all_modules._global_forward_pre_hooks
            assert torch.is_grad_enabled()
            with torch.inference_mode(), Names(frozenset()) as recorder:
                own(torch.ones(1, 5, 8))
            assert [call.op for call in recorder.calls][-1] == "_transformer_encoder_layer_fwd"
        finally:
            go_on.set()
        names = [operation.name for operation in graph.result().operations]
    assert "attending.layer.linear1.linear" in names


class Own(torch.Tensor):
    """A class of tensors, as libraries for images have."""


class MakingOwn(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        made = self.first(x).as_subclass(Own).relu()
        made.mul_(2)
        return self.last(made)


def test_tensors_of_a_class_of_their_own_keep_their_numbers():
    model, image = MakingOwn().eval(), torch.rand(1, 3, 2, 2)
    recorder = Recorder(frozenset(["conv2d", "relu", "mul"]))
    with torch.inference_mode(), recorder:
        returned = model(image)
    assert [call.op for call in recorder.calls] == ["conv2d", "relu", "mul", "conv2d"]
    first, relu, mul, last = recorder.calls
    assert relu.args[0] == first.results[0]
    assert mul.args[0] == relu.results[0]
    assert last.args[0] == mul.results[0]
    assert recorder.value(returned) == last.results[0]
