import pytest

from flyweight.cli.app import COMMANDS
from flyweight.cli.stopped import _REPEATED, _RESUMED, how_to_continue


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("train -c a -o b=1", "continue with -r: flyweight train -c a -o b=1 -r"),
        ("train -c a -r -o b=1", "continue with -r: flyweight train -c a -o b=1 -r"),
        ("prune -c a --resume", "continue with -r: flyweight prune -c a -r"),
        ("prune -c a --dry-run", "start again with: flyweight prune -c a --dry-run"),
        ("sensitivity -c a", "continue with the same command: flyweight sensitivity -c a"),
        ("sensitivity --merge a", "start again with: flyweight sensitivity --merge a"),
        ("bench --layers -c a", "continue with the same command: flyweight bench --layers -c a"),
        ("bench a.onnx", "start again with: flyweight bench a.onnx"),
        ("demo --fresh --json", "continue with the same command: flyweight demo --json"),
        ("convert-data a", "start again with: flyweight convert-data a"),
    ],
)
def test_how_a_command_continues(arguments, said):
    assert how_to_continue(arguments.split()) == f"stopped; {said}"


def test_arguments_are_quoted_for_a_shell():
    assert how_to_continue(["eval", "-w", "my model"]).endswith("flyweight eval -w 'my model'")


def test_all_names_are_commands():
    assert set(COMMANDS) > _RESUMED | _REPEATED
