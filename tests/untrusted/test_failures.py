import pytest

from flyweight.errors import FileError, PlanError
from flyweight.untrusted.failures import LimitError, reason_of, refusing


class PanicException(BaseException):
    pass


def raised(failure):
    with (
        pytest.raises(PlanError) as found,
        refusing(PlanError, "A plan must be JSON.", "'a.json'", "Write it again."),
    ):
        raise failure
    return str(found.value)


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (RecursionError("maximum recursion depth exceeded"), "it nests too deeply"),
        (MemoryError(), "it needs more memory than there is"),
        (KeyError("format"), "'format' is missing"),
        (OverflowError("int too large\nto convert"), "int too large to convert"),
        (FileNotFoundError(2, "No such file or directory", "a"), "No such file or directory"),
        (FileError("A file must be there."), "A file must be there"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), "it is no UTF-8 text from byte 0 on"),
        (ZeroDivisionError(), "ZeroDivisionError"),
        (ValueError("\x1b[2J"), r"\x1b[2J"),
        (KeyError(10**5000), "KeyError"),  # its text has more digits than Python prints
        (PanicException("index out of bounds"), "index out of bounds"),
    ],
)
def test_every_failure_becomes_one_line_of_the_promised_class(failure, reason):
    text = f"A plan must be JSON. Received 'a.json': {reason}. Write it again."
    assert raised(failure) == text


def test_the_promised_class_and_interruptions_pass():
    assert raised(PlanError("kept as it is")) == "kept as it is"
    with (
        pytest.raises(KeyboardInterrupt),
        refusing(PlanError, "A plan must be JSON.", "text", "Write it again."),
    ):
        raise KeyboardInterrupt


def test_a_reason_has_a_bound():
    assert len(reason_of(ValueError("a" * 1000))) == 200
    assert issubclass(LimitError, ValueError)
