import inspect

import pytest

from flyweight import errors
from flyweight.errors import FlyweightError, nearest

KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if kind.__module__ == errors.__name__
]


def test_every_error_is_on_the_screen_that_shows_them():
    for kind in KINDS:
        assert issubclass(kind, FlyweightError)
        assert kind.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lerning_rate", "Nearest: 'learning_rate'."),
        ("epoch", "Nearest: 'epochs'."),
        ("zzz", "Valid: epochs, learning_rate."),
        ("", "Valid: epochs, learning_rate."),
    ],
)
def test_nearest(name, said):
    assert nearest(name, ["learning_rate", "epochs", "epochs"]) == said


def test_nearest_does_not_list_hundreds():
    assert nearest("?", (f"name{n:03}" for n in range(500))).endswith("name011 and 488 more.")
