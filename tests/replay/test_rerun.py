import pytest
import torch
from torch import nn

from flyweight.graph.dispatch import evaluating
from flyweight.graph.program import Value
from flyweight.replay.rerun import ReplayError, needed_by, record, rerun


def small():
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 1)).eval()


def test_a_run_is_taken_down_without_writes_in_place():
    model, x = small(), torch.randn(2, 3, 4, 4)
    with evaluating(model):
        run = record(model, lambda: model(x))
    assert [step.func._schema.name for step in run.calls] == ["aten::conv2d", "aten::relu", "aten::conv2d"]  # fmt: skip  # noqa: E501
    assert isinstance(run.outputs, Value)
    assert run.outputs.number == run.calls[-1].result.number
    assert torch.equal(run.outputs_with({}), model(x))


def test_what_is_kept_is_what_it_was_before_it_was_written_over():
    model, x = small(), torch.randn(2, 3, 4, 4)
    with evaluating(model):
        first = record(model, lambda: model(x)).calls[0].result.number
        run = record(model, lambda: model(x), [first])
        assert torch.equal(run.values[first], model[0](x))
        assert (run.values[first] < 0).any()


def test_a_part_runs_again_from_a_changed_weight():
    model, x = small(), torch.randn(2, 3, 4, 4)
    other = torch.randn_like(model[2].weight)
    with evaluating(model):
        steps = record(model, lambda: model(x)).after([1])
        weight = record(model, lambda: model(x)).stored["2.weight"]
        steps = record(model, lambda: model(x)).after([weight])
        assert len(steps) == 1
        run = record(model, lambda: model(x), needed_by(steps))
        changed = rerun(steps, run.values, {weight: other})
        found = run.outputs_with(changed)
        model[2].weight.data = other
        assert torch.equal(found, model(x))


def test_two_runs_of_one_network_are_the_same_whatever_the_batch():
    model = small()
    with evaluating(model):
        one, two = (record(model, lambda n=n: model(torch.randn(n, 3, 4, 4))) for n in (1, 2))
        other = record(model, lambda: model[0](torch.randn(1, 3, 4, 4)))
    assert one.same_as(two)
    assert not one.same_as(other)


class _Windowed(nn.Module):
    def forward(self, x):
        y = x * 2
        window = y[:, :1]
        y.add_(1)
        return window + y


def test_a_write_under_a_view_is_refused():
    model = _Windowed()
    with evaluating(model), pytest.raises(ReplayError, match="another one is a view of"):
        record(model, lambda: model(torch.ones(1, 2)))


def test_nothing_is_written_over_that_is_still_needed():
    class Twice(nn.Module):
        def forward(self, x):
            y = x + 1
            z = y.view(-1)
            return torch.relu(y), z

    model, x = Twice(), torch.tensor([-3.0, 1.0])
    with evaluating(model):
        run = record(model, lambda: model(x))
        values = {**run.values, run.calls[0].args[0].number: x}
        found = rerun(run.calls, values, {})
        relu, flat = run.outputs_with(found)
    assert relu.tolist() == [0, 2]
    assert flat.tolist() == [-2, 2]


def test_tensors_inside_of_an_object_are_refused():
    class Boxed:
        def __init__(self, scores):
            self.scores = scores

    model = small()
    with evaluating(model), pytest.raises(ReplayError, match="inside of an object"):
        record(model, lambda: Boxed(model(torch.randn(1, 3, 4, 4))))
