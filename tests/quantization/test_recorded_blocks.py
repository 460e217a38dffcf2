import torch
from tests.quantization.conftest import Residual, block, trained_like
from torch import nn

from flyweight.graph.dispatch import evaluating
from flyweight.graph.example_inputs import Example
from flyweight.graph.program import numbers_in
from flyweight.graph.recorder import module_paths
from flyweight.graph.recording import private_copy
from flyweight.quantization.placement import place
from flyweight.quantization.recorded_blocks import blocks_of, placed
from flyweight.quantization.sites import record_sites
from flyweight.replay.rerun import record


def found_in(model):
    copy, example = private_copy(model, values=True), Example((torch.randn(2, 3, 16, 16),))
    recorded = record_sites(copy, example)
    with evaluating(copy), module_paths(copy) as path:
        run = record(copy, lambda: copy(*example.args), (), path)
    blocks = blocks_of(run, placed(place(recorded), recorded))
    assert [call for one in blocks for call in one.calls] == list(run.calls)
    made = {number for call in run.calls for number in call.makes}
    for place_of, one in enumerate(blocks):
        after = [call for later in blocks[place_of + 1 :] for call in later.calls]
        needed = {n for call in after for n in call.reads} | set(numbers_in(run.outputs))
        assert needed == set(one.after)
        assert made.intersection(needed, *[{n for c in one.calls for n in c.makes}]) == set(
            one.ends
        )
    return blocks


def layers(blocks):
    return [[layer.operation for layer in one.layers] for one in blocks]


def test_a_residual_block_stays_whole():
    blocks = found_in(trained_like(Residual()))
    assert layers(blocks) == [
        ["stem.0.conv2d", "branch.0.conv2d", "narrow.conv2d"],
        ["head.linear"],
    ]
    assert blocks[0].calls[-1].op == "flatten"


def test_layers_in_a_row_are_taken_by_three_with_their_normalisation_and_activation():
    parts = [block(3, 4, nn.ReLU()), *(block(4, 4, nn.ReLU()) for _ in range(6))]
    blocks = found_in(trained_like(nn.Sequential(*parts)))
    assert [len(names) for names in layers(blocks)] == [3, 3, 1]
    assert all(one.calls[-1].op == "relu" for one in blocks)
    assert all(len(one.ends) == 1 for one in blocks)


class Routed(nn.Module):
    """An early tensor is read again by a late concatenation; two results are returned."""

    def __init__(self):
        super().__init__()
        self.early = nn.Sequential(*(block(3 if not n else 4, 4, nn.ReLU()) for n in range(3)))
        self.late = nn.Sequential(*(block(4, 4, nn.ReLU()) for _ in range(8)))
        self.first, self.second = nn.Conv2d(4, 2, 1), nn.Conv2d(8, 2, 1)

    def forward(self, images):
        early = self.early(images)
        late = self.late(early)
        return self.first(late), self.second(torch.cat([early, late], 1))


def test_a_route_crosses_blocks_and_what_is_returned_is_an_end():
    blocks = found_in(trained_like(Routed()))
    for block_of_three, part in zip(layers(blocks), ("early", "late"), strict=False):
        assert block_of_three == [f"{part}.{n}.0.conv2d" for n in range(3)]
    assert blocks[0].ends[0] in blocks[1].after
    (both,) = (one for one in blocks if "first.conv2d" in [layer.operation for layer in one.layers])
    assert [layer.operation for layer in blocks[-1].layers] == ["second.conv2d"]
    assert len(both.ends) == 2
    assert both.calls[-1].op == "cat"
