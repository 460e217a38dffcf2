import pytest

from flyweight.engine.launch import own_error
from flyweight.errors import TrainingError


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("Traceback\nflyweight.errors.TrainingError: Lower it.", TrainingError, "Lower it."),
        ("Traceback\nValueError: no", ValueError, None),
        ("Traceback\nflyweight.errors.counted: no", ValueError, None),
    ],
)
def test_an_error_of_another_process_is_found_in_its_traceback(text, kind, message):
    given = ValueError(text)
    found = own_error(given)
    assert type(found) is kind
    assert str(found) == (message or text)
