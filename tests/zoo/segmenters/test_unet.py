import pytest
import torch

from flyweight.graph import trace
from flyweight.zoo.segmenters.unet import UNet
from flyweight.zoo.sources.old_names import old_name


def test_the_originals_figures():
    with torch.device("meta"):
        model = UNet(2)
    state = {n: v for n, v in model.state_dict().items() if "num_batches" not in n}
    convolutions = sum(value.numel() for value in state.values() if value.ndim == 4)
    values = sum(value.numel() for value in state.values())
    assert convolutions == 13_384_512
    assert round(values / 1e6, 1) == 13.4
    # The table's 77 MB is 1.5 times the file of plain values.
    assert round(4 * values / 2**20) == 51
    assert round(1.5 * 4 * values / 2**20) == 77


def test_every_layer_but_the_last_can_be_cut():
    graph = trace(UNet(3, width=0.125), (torch.zeros(1, 3, 32, 48),))
    assert [name for name, group in graph.groups.items() if not group.prunable] == ["logit.weight"]
    assert len(graph.groups) == 19


def test_scores_are_as_large_as_the_picture():
    model = UNet(3, width=0.125).eval()
    for size in ((32, 48), (37, 53)):
        assert model(torch.rand(1, 3, *size)).shape == (1, 3, *size)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("encode.block1.conv1.conv.weight", "encode/block1/conv1/weights"),
        (
            "encode.block4.down.conv1.bn.running_var",
            "encode/block4/down/conv1/BatchNorm/moving_variance",
        ),
        ("decode.decode4.up.conv0.bn.bias", "decode/decode4/up/conv0/BatchNorm/beta"),
        ("decode.decode4.up.conv0.bn.num_batches_tracked", None),
    ],
)
def test_old_names(ours, theirs):
    assert old_name(ours) == theirs


def test_every_value_has_an_old_name():
    with torch.device("meta"):
        names = [name for name in UNet(2).state_dict() if "num_batches" not in name]
    assert len({old_name(name) for name in names}) == len(names)
    assert None not in {old_name(name) for name in names}
