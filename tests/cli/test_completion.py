"""Shell completion: the right words, from the command's own file, without torch."""

import os
import subprocess
import sys

import pytest

from flyweight.cli.app import COMMANDS

SHELLS = ("bash", "zsh", "fish")


def asked(shell, line):
    """Return the words that a shell is offered for a command line, and whether torch was loaded."""
    given = {
        "bash": {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)},
        "zsh": {"_TYPER_COMPLETE_ARGS": line},
        "fish": {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    }[shell]
    code = (
        "import sys, atexit; "
        "atexit.register(lambda: sys.stderr.write(str('torch' in sys.modules))); "
        "from flyweight.cli.main import main; sys.argv = ['flyweight']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **given, "_FLYWEIGHT_COMPLETE": f"complete_{shell}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == "False"
    return done.stdout


@pytest.mark.parametrize("shell", SHELLS)
def test_commands(shell):
    words = asked(shell, "flyweight pr")
    assert [name for name in COMMANDS if name in words] == ["prune", "predict"]


@pytest.mark.parametrize("shell", SHELLS)
def test_options_of_a_command(shell):
    words = asked(shell, "flyweight prune --bud")
    assert "--budget" in words
    assert "--criterion" not in words


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_of_a_shell(flyweight, shell, monkeypatch):
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    answer = flyweight("--show-completion", shell)
    assert answer.status == 0
    assert f"complete_{shell}" in answer.out
    assert "_FLYWEIGHT_COMPLETE" in answer.out
