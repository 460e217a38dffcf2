import pytest

from flyweight.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Katze ü 猫 🐈", "Katze ü 猫 🐈"),
        ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
        ("a\x9b2Jb", r"a\x9b2Jb"),
        ("a\rb", r"a\x0db"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("gnp.\u202eexe", r"gnp.\u202eexe"),
        ("caf\udce9.png", r"caf\udce9.png"),
        ("a\u2028b", r"a\u2028b"),
    ],
)
def test_what_a_terminal_would_obey_is_written_out(text, shown):
    assert printable(text) == shown
    assert printable(text).encode("utf-8")
