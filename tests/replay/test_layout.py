import torch
from torch import nn

from flyweight.graph.dispatch import evaluating
from flyweight.replay.layout import laid_out, maps_in, select
from flyweight.replay.rerun import needed_by, record, rerun


class Net(nn.Module):
    """Convolutions, then tokens whose four axes are no feature map."""

    def __init__(self, strided=False):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 1)
        self.strided = strided

    def forward(self, x):
        y = torch.relu(self.second(torch.relu(self.first(x))))
        if self.strided:
            y = y.as_strided(y.shape, y.stride())
        heads = y.view(y.shape[0], 2, 3, -1)
        return heads.transpose(2, 3).contiguous().view(y.shape[0], -1)


def recorded(model, x):
    with evaluating(model):
        steps = record(model, lambda: model(x)).calls
        return record(model, lambda: model(x), needed_by(steps))


def test_weights_and_maps_are_found_up_to_views():
    model = Net().eval()
    run = recorded(model, torch.randn(2, 3, 5, 5))
    maps = maps_in(run.calls)
    assert {run.stored["first.weight"], run.stored["second.weight"]} <= maps
    assert run.stored["first.bias"] not in maps
    made = [step for step in run.calls if not maps.isdisjoint(step.makes)]
    names = [step.func._schema.name.removeprefix("aten::") for step in made]
    assert names == ["conv2d", "relu", "conv2d", "relu"]


def test_strides_hold_for_one_layout():
    assert not maps_in(recorded(Net(strided=True).eval(), torch.randn(2, 3, 5, 5)).calls)


def test_a_run_in_the_other_layout_gives_the_same():
    model = Net().eval()
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    run = recorded(model.double(), x)
    values = laid_out(run.values, maps_in(run.calls))
    weight = values[run.stored["first.weight"]]
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()
    found = run.outputs_with(rerun(run.calls, values, {}))
    torch.testing.assert_close(found, model(x), rtol=1e-12, atol=1e-12)


def test_choosing_channels_keeps_the_layout():
    source = torch.randn(2, 6, 3, 4)
    index = torch.tensor([4, 0, 1])
    for one in (source, source.contiguous(memory_format=torch.channels_last)):
        found = select(one, 1, index)
        assert torch.equal(found, source[:, [4, 0, 1]])
        assert found.is_contiguous() == one.is_contiguous()
    assert torch.equal(select(source[0], -1, index[1:]), source[0][..., [0, 1]])
