import copy
import threading

import pytest
import torch
from torch import nn

import flyweight as fw
from flyweight.graph.example_inputs import Example
from flyweight.quantization.sites import handled, record_sites, watch_paths


class Shared(nn.Module):
    """One convolution twice, with operators and functions of torch."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        y = self.conv(torch.relu(self.conv(x)))
        y += x
        if self.training:
            y = y * 2
        return y.view(y.shape[0], -1)


def test_sites_are_the_operations_of_the_trace(residual, images):
    recorded = record_sites(residual, Example((images[:1],)))
    graph = fw.trace(residual, (images[:1],))
    found = [name for site in recorded.sites for name in site.operations]
    assert found == [operation.name for operation in graph.operations]
    assert list(recorded.inputs.values()) == ["args[0]"]


def test_names_count_calls_of_a_module_and_know_operators():
    recorded = record_sites(Shared(), Example((torch.rand(1, 3, 2, 2),)))
    assert [site.name for site in recorded.sites] == [
        "conv|conv2d|1",
        "|relu|1",
        "conv|conv2d|2",
        "|add|1",
        "|view|1",
    ]
    assert [site.op for site in recorded.sites] == ["conv2d", "relu", "conv2d", "add", "view"]
    assert recorded.sites[2].operation == "conv.conv2d#2"


def names_seen(model, *args):
    seen = []

    def note(name, func, args, kwargs):
        seen.append(name)
        return func(*args, **kwargs)

    with handled(note):
        model(*args)
    return [name for name in seen if "|__get__|" not in name]


def test_training_another_size_a_copy_and_another_thread_have_the_same_names():
    model = Shared()
    watch_paths(model)
    names = names_seen(model.eval(), torch.rand(1, 3, 2, 2))
    assert names_seen(copy.deepcopy(model), torch.rand(2, 3, 5, 4)) == names
    assert set(names) < set(names_seen(model.train(), torch.rand(1, 3, 2, 2)))
    found = []
    thread = threading.Thread(
        target=lambda: found.extend(names_seen(model.eval(), torch.rand(1, 3, 2, 2)))
    )
    with handled(lambda name, func, args, kwargs: func(*args, **kwargs)):
        thread.start()
        thread.join()
    assert found == names


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_what_attention_of_torch_calls_are_sites_and_compute_the_same(weights, masked):
    torch.manual_seed(0)
    model = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    rows = torch.randn(2, 5, 8)
    mask = torch.zeros(5, 5).masked_fill(torch.ones(5, 5).triu(1) > 0, -torch.inf)
    settings = {"need_weights": weights, "attn_mask": mask if masked else None}
    example = Example((rows, rows, rows), settings)
    recorded = record_sites(model, example)
    graph = fw.trace(model, example.args, settings)
    found = [name for site in recorded.sites for name in site.operations]
    assert found == [operation.name for operation in graph.operations]
    assert [site.operation for site in recorded.sites if site.op == "linear"] == [
        "linear",
        "linear#2",
    ]
    with handled(lambda name, func, args, kwargs: func(*args, **kwargs)), torch.no_grad():
        made = model(rows, rows, rows, **settings)
    with torch.no_grad():
        wanted = model(rows, rows, rows, **settings)
    torch.testing.assert_close(made, wanted)
