import copy
import threading

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
