import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from flyweight.pruning.without_chance import without_chance

X = torch.rand(4, 6, 5)


def kept(x, p=0.5):
    return x.new_empty(len(x), 1, 1).bernoulli_(1 - p) * x


CODE = {
    "module": lambda x: nn.Dropout(0.5)(x),
    "channels": lambda x: nn.Dropout1d(0.5)(x),
    "function": lambda x: functional.dropout(x, 0.5, True),
    "in place": lambda x: functional.dropout(x.clone(), 0.5, True, True),
    "alpha": lambda x: functional.alpha_dropout(x, 0.5, True),
    "torch": lambda x: torch.dropout(x, 0.5, True),
    "by keyword": lambda x: functional.dropout(input=x, p=0.5, training=True),
    "drop path": kept,
    "attention": lambda x: functional.scaled_dot_product_attention(x, x, x, dropout_p=0.5),
    "attention by place": lambda x: functional.scaled_dot_product_attention(x, x, x, None, 0.5),
    "slopes": lambda x: functional.rrelu(x - 0.5, training=True),
    "noise": lambda x: x + torch.randn_like(x) + torch.rand(x.shape[-1]),
    "order": lambda x: x[:, torch.randperm(x.shape[1])],
    "recurrent": lambda x: nn.Sequential(lstm(5))[0](x)[0],
    "several heads": lambda x: heads(x, x, x)[0],
}
torch.manual_seed(0)
heads = nn.MultiheadAttention(5, 1, dropout=0.5, batch_first=True)
layers = nn.LSTM(5, 5, num_layers=2, dropout=0.9, batch_first=True)


def lstm(_):
    return layers


@pytest.mark.parametrize("name", CODE)
def test_two_runs_in_training_are_equal(name):
    holder = nn.ModuleList([heads, layers]).train()
    with without_chance(holder), torch.no_grad():
        one, two = CODE[name](X), CODE[name](X)
    assert torch.equal(one, two)
    layers.dropout = 0.9


@pytest.mark.parametrize("name", ["module", "function", "by keyword", "torch", "drop path"])
def test_dropout_passes(name):
    with without_chance(nn.Identity()):
        assert torch.equal(CODE[name](X), X)


def test_outside_chance_is_back():
    assert not torch.equal(CODE["function"](X), CODE["function"](X))


@pytest.mark.parametrize("draw", [random.random, np.random.rand])
def test_two_runs_draw_the_same_with_other_generators(draw):
    found = []
    for _ in range(2):
        with without_chance(nn.Module()):
            found.append(draw())
    assert found[0] == found[1]
