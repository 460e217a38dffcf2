import torch
from torch import nn

from flyweight.graph.dispatch import evaluating
from flyweight.graph.program import OUTSIDE, Call, Recording, Value, numbers_in, values_in
from flyweight.graph.recording import record as record_shapes
from flyweight.graph.rules import WHOLE
from flyweight.replay.rerun import record


def value(number):
    return Value(number, (2,), torch.float32)


def call(func, *args, where="", result=None):
    return Call(func, func._schema.name.removeprefix("aten::"), where, args, {}, result)


ADD, RELU, CONTIGUOUS = (
    torch.ops.aten.add.Tensor,
    torch.ops.aten.relu.default,
    torch.ops.aten.contiguous.default,
)


def test_a_call_says_what_it_takes_and_makes():
    one = call(ADD, value(1), value(2), result=value(3))
    assert one.arguments == {"self": value(1), "other": value(2), "alpha": 1}
    assert (one.reads, one.makes, one.results, one.single) == ((1, 2), (3,), (value(3),), True)
    several = call(torch.ops.aten.chunk.default, value(1), 2, result=[value(2), value(3)])
    assert (several.makes, several.single, several.constants) == ((2, 3), False, (2,))


def test_steps_of_the_computation():
    assert call(RELU, value(1), result=value(2)).is_step
    assert not call(CONTIGUOUS, value(1), result=value(2)).is_step
    assert not call(RELU, value(1), result=value(2), where=OUTSIDE).is_step
    assert not call(torch.ops.aten._local_scalar_dense.default, value(1), result=0.5).is_step


def test_values_in_nested_containers():
    tree = [value(1), {"a": (value(2), None, 3)}, value(1)]
    assert [found.number for found in values_in(tree)] == [1, 2, 1]
    assert numbers_in(tree) == (1, 2, 1)


class Reshaping(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(12, 2)

    def forward(self, x):
        return self.layer(x.view(x.shape[0], -1))


def test_runs_are_the_same_up_to_sizes():
    model = Reshaping()
    with evaluating(model):
        one, two, again = (record(model, lambda n=n: model(torch.ones(n, 3, 4))) for n in (1, 2, 1))
    assert one.same_as(two)
    assert not one.same_as(two, constants=True)
    assert one.same_as(again, constants=True)


def test_a_recording_holds_runs():
    recording = record_shapes(Reshaping(), (torch.ones(1, 3, 4),), WHOLE)
    run, training, other = recording.runs
    assert recording.evaluation is run
    assert (run.mode, run.on_values, dict(run.values)) == ("evaluation", False, {})
    assert (training.mode, other.mode) == ("training", "evaluation")
    assert run.example.described().args == (((1, 3, 4), "float32"),)
    assert training.example.described().args == run.example.described().args
    assert other.example.described().args == (((2, 3, 4), "float32"),)
    assert list(run.inputs.values()) == ["args[0]"]
    assert run.names[run.stored["layer.bias"]] == "layer.bias"
    assert Recording((run, run)).evaluation is run
