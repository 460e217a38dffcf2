"""The table of commands: complete, true, and read without loading a command."""

import inspect
import os
import re
import subprocess
import sys

import pytest
import typer.main

from flyweight.cli.app import COMMANDS, CommandsOnDemand, app
from flyweight.on_demand import load

FILES = {entry.function.partition(":")[0] for entry in COMMANDS.values()}
HEAVY = ("torch", "numpy", "yaml", "rich")  # typer itself needs pydantic for a command


def modules_after(*arguments):
    """Return the modules that are loaded after a command line has run in a fresh process."""
    code = (
        "import sys; from flyweight.cli.main import run; "
        f"status = run({list(arguments)!r}); "
        "print('\\n'.join(sys.modules), file=sys.stderr); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stderr.splitlines())


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_says_what_the_command_says(name):
    entry = COMMANDS[name]
    assert inspect.getdoc(load(entry.function)).splitlines()[0] == entry.summary
    assert len(f"  {max(COMMANDS, key=len)}  {entry.summary}") <= 78


def test_help_of_all_loads_no_command():
    loaded = modules_after("--help")
    assert not loaded & (FILES | {*HEAVY})
    assert "flyweight.cli.app" in loaded


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_one_command_loads_only_its_file(name):
    loaded = modules_after(name, "--help")
    assert loaded & FILES == {COMMANDS[name].function.partition(":")[0]}
    assert not loaded & {*HEAVY}


@pytest.mark.parametrize("arguments", [["evl"], ["prune", "--pruned_ratio=1"], ["eval"]])
def test_a_mistake_in_the_arguments_loads_nothing_heavy(arguments):
    code = (
        "import sys; from flyweight.cli.main import run; "
        f"print(run({arguments!r}), [name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "2 []\n"


def test_commands_can_be_listed_without_loading_them():
    commands = CommandsOnDemand()
    assert list(commands) == list(COMMANDS)
    assert (len(commands), "eval" in commands, "evl" in commands) == (len(COMMANDS), True, False)
    with pytest.raises(KeyError):
        commands["evl"]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_does(name):
    """A sentence for each option, and what its value is unless the option is a switch."""
    for parameter in typer.main.get_command(app).commands[name].params:
        assert re.fullmatch(r"[A-Zaex].+\.", parameter.help, re.DOTALL), parameter.opts
        assert len(parameter.help.split()) >= 3 or parameter.param_type_name == "argument"
        assert (
            parameter.is_flag if parameter.metavar is None and "--" in parameter.opts[-1] else True
        )


def seconds_of(*command):
    """Return the processor time of a command, the least of three runs.

    A busy machine makes a process wait, but hardly makes it compute more.
    """
    times = []
    for _ in range(3):
        before = os.times()
        subprocess.run([sys.executable, *command], capture_output=True, check=True)
        after = os.times()
        user = after.children_user - before.children_user
        times.append(user + after.children_system - before.children_system)
    return min(times)


@pytest.mark.parametrize(
    ("command", "quiet"),
    [
        (("-c", "import flyweight"), 0.1),
        (("-m", "flyweight", "--help"), 0.15),
        (("-m", "flyweight", "prune", "--help"), 0.3),
    ],
)
def test_it_answers_at_once(command, quiet):
    """The limits of a quiet machine, tripled, because this one may be slow or shared."""
    assert seconds_of(*command) <= 3 * quiet
