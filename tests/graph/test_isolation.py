from functools import lru_cache
from typing import ClassVar

import torch
from torch import nn

from flyweight.graph.isolation import isolated

SHARED = {"before": torch.ones(1)}
PROTOCOL = []


@lru_cache
def table_of(size):
    return torch.arange(size)


def decorated(function):
    cached = lru_cache(function)

    def wrapper(*args):
        return cached(*args)

    return wrapper


@decorated
def hidden_table(size):
    return torch.arange(size)


class Caching(nn.Module):
    tables: ClassVar = {}
    last = None

    @staticmethod
    @lru_cache
    def rows(size):
        return torch.ones(size)

    def forward(self, size):
        Caching.tables[size] = torch.zeros(size)
        Caching.last = torch.zeros(size)
        Caching.fresh = torch.zeros(size)
        SHARED["during"] = torch.zeros(size)
        SHARED["before"] = torch.zeros(size)
        PROTOCOL.append("called")
        return self.rows(size) + table_of(size)


def run_isolated(made):
    with isolated(Caching(), made):
        return Caching()(3)


def test_tensors_kept_outside_of_the_module_are_taken_back():
    before = SHARED["before"]
    run_isolated(lambda tensor: True)
    assert Caching.tables == {}
    assert Caching.last is None
    assert not hasattr(Caching, "fresh")
    assert list(SHARED) == ["before"]
    assert SHARED["before"] is before


def test_caches_are_empty_before_and_after():
    with torch.inference_mode():
        old, hidden = table_of(3), hidden_table(3)
    found = run_isolated(lambda tensor: True)
    assert not found.is_inference()
    assert table_of.cache_info().currsize == 0
    assert Caching.rows.cache_info().currsize == 0
    assert table_of(3) is not old
    assert hidden_table(3) is not hidden


def test_what_others_keep_meanwhile_stays():
    PROTOCOL.clear()
    run_isolated(lambda tensor: False)
    assert list(Caching.tables) == [3]
    assert PROTOCOL == ["called"]
    Caching.tables.clear()
    Caching.last = None
    del Caching.fresh
    del SHARED["during"]


def test_an_error_takes_everything_back_too():
    class Failing(Caching):
        def forward(self, size):
            super().forward(size)
            raise ValueError(size)

    try:
        with isolated(Failing(), lambda tensor: True):
            Failing()(3)
    except ValueError:
        pass
    assert Caching.tables == {}


class Answering:
    """Answers with an error of its own, as dictionaries with attributes do."""

    def __getattr__(self, name):
        if name == "__func__":
            raise KeyError(name)
        raise AttributeError(name)


ANSWERING = Answering()


def test_objects_that_answer_every_question_are_not_asked():
    run_isolated(lambda tensor: True)
    assert type(ANSWERING) is Answering
