"""Entry point of the command line: arguments in, exit status out, one line for a user's mistake."""

import gc
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

import typer
import typer.main

from flyweight.cli.app import app
from flyweight.cli.stopped import how_to_continue
from flyweight.config.old_keys import in_our_words
from flyweight.errors import ConfigError, FlyweightError, nearest
from flyweight.printable import printable
from flyweight.processors import thread_count
from flyweight.stopping import signals_as_ctrl_c

MISTAKE, STOPPED = 2, 130
WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "3000"}
"""How threads of OpenMP wait: they look so many times, then sleep."""
_SETTINGS = "Settings of the config are given as: -o KEY=VALUE."
_LONGEST_LINE = 2000
_COMPLETION = ("--install-completion", "--show-completion")
_SEVERAL = {
    **dict.fromkeys(("-o", "--opt"), ("-o", r"[\w.]+=")),
    **dict.fromkeys(("--skip", "--not-quant-pattern", "--not_quant_pattern"), ("--skip", r"[^-]")),
}
"""Options that several values may follow: their name, and what a further value looks like."""
_SHELLS = ("bash", "zsh", "fish", "powershell", "pwsh")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave the process with its status.

    Status 0 is success, 2 a mistake of the user, 130 an interruption.
    """
    prepare_process()
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def prepare_process() -> None:
    """Set what must be set before a command loads its packages, torch first of all.

    Nothing under `flyweight.cli` imports torch when it is loaded, so environment variables that
    torch reads only once belong here.
    """
    # Importing torch creates a million objects that all stay alive. Searching them for garbage
    # again and again would take a quarter of the time of a dry run.
    gc.set_threshold(100_000, 50, 50)
    use_threads_that_wait()
    # pydantic would search every installed package for plugins, which no setting needs.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


def use_threads_that_wait() -> None:
    """Let the threads of computations sleep while they wait, and be as many as may run at a time.

    By default they spin: where other programs need the processors, too, that makes every step of a
    training many times slower. Threads that sleep at once make it twice as slow on a quiet machine,
    so they spin for some microseconds first. Values that the user has set stay. Nothing changes
    once torch is loaded.
    """
    if "torch" in sys.modules:
        return
    if "OMP_WAIT_POLICY" not in os.environ:
        for name, value in WAITING.items():
            os.environ.setdefault(name, value)
    threads = thread_count()
    if threads is not None:
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return its status."""
    use_threads_that_wait()
    _escape_undecodable_names()
    with signals_as_ctrl_c():
        return _run(arguments)


def _run(arguments: Sequence[str]) -> int:
    try:
        command = typer.main.get_command(_app_for(arguments))
        _require_known_command(arguments, command)
        # Typer turns some exceptions into a status of its own, which it returns.
        status = command(spread_overrides(arguments), prog_name="flyweight", standalone_mode=False)
        sys.stdout.flush()
    except FlyweightError as error:
        return _report_mistake(str(error))
    except typer.TyperException as error:
        return _report_mistake(_usage_message(error))
    except (KeyboardInterrupt, typer.Abort):
        status = STOPPED
    except BrokenPipeError:
        return _ignore_broken_pipe()
    except SystemExit as ending:  # Typer's answer to a broken pipe.
        return _ignore_broken_pipe() if ending.code == 1 else int(ending.code or 0)
    except OSError as error:
        return _report_mistake(_system_message(error))
    if status == STOPPED:
        sys.stderr.write(f"{printable(how_to_continue(arguments))}\n")
    return status if isinstance(status, int) else 0


def spread_overrides(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with one option before each of its values.

    The original tools accepted several overrides after one `-o`, and several patterns after one
    `--not_quant_pattern`; both forms work.

    Example:
        >>> spread_overrides(["eval", "-o", "weights=a", "input_size=320", "--json"])
        ['eval', '-o', 'weights=a', '-o', 'input_size=320', '--json']
        >>> spread_overrides(["predict", "-o", "weights=a", "cat.png"])
        ['predict', '-o', 'weights=a', 'cat.png']
        >>> spread_overrides(["quantize", "--skip", "head", "stem", "-w", "a"])
        ['quantize', '--skip', 'head', '--skip', 'stem', '-w', 'a']
    """
    spread: list[str] = []
    option, more = "", ""
    for argument in arguments:
        if argument in _SEVERAL:
            option, more = _SEVERAL[argument][0], ""
            continue
        follows = more and re.match(_SEVERAL[more][1], argument)
        if option or follows:
            # A first word without '=' is passed on too, so that the error message can name it.
            more = option or more
            spread += [more, argument]
            option = ""
        else:
            more = ""
            spread.append(argument)
    return [*spread, option] if option else spread


def _app_for(arguments: Sequence[str]) -> typer.Typer:
    """Return the command line, which takes the name of a shell if the arguments have one."""
    if len(arguments) > 1 and arguments[0] in _COMPLETION and arguments[1] in _SHELLS:
        # Typer takes the name of a shell where it does not detect the shell that it runs in.
        os.environ["_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION"] = "1"
    return app


def _require_known_command(arguments: Sequence[str], group: Any) -> None:
    if arguments and arguments[0] in _COMPLETION:
        return
    name = next((argument for argument in arguments if not argument.startswith("-")), None)
    if name is not None and name not in group.commands:
        meant = in_our_words(name)
        hint = f"{meant} {_SETTINGS}" if meant else nearest(name, group.commands)
        raise ConfigError(
            f"A command must be one of flyweight's. Received '{name}'. "
            f"{hint} List them with: flyweight --help"
        )


def _usage_message(error: "typer.TyperException") -> str:
    """Return a usage error of typer as one line in the style of all other error messages."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "flyweight"
    option = getattr(error, "option_name", None)
    if context is not None and type(error).__name__ == "NoSuchOption":
        options = [name for item in context.command.params for name in _names_of(item)]
        hint = nearest(str(option), options)
        meant = in_our_words(str(option))
        if meant and "--opt" in options:
            hint = f"{meant} {_SETTINGS}"
        return (
            f"An option must be one of '{path}'. Received '{option}'. "
            f"{hint} List them with: {path} --help"
        )
    return f"{error.format_message().rstrip('.')}. See: {path} --help"


def _names_of(option: Any) -> list[str]:
    """Return the long spellings of an option, `--no-...` included."""
    return [name for name in (*option.opts, *option.secondary_opts) if name.startswith("--")]


def _system_message(error: OSError) -> str:
    """Return the message for an error of the system that no other module has explained."""
    where = f" at '{error.filename}'" if error.filename else ""
    return (
        "Files and folders must exist, with permission to use them. "
        f"Received: {error.strerror or error}{where}. Correct the path or free space, and repeat."
    )


def _report_mistake(message: str) -> int:
    line = printable(" ".join(_without_traceback(message).split()))
    if len(line) > _LONGEST_LINE:
        line = f"{line[: _LONGEST_LINE - 400]} ... {line[-400:]}"  # What to do stands at the end.
    sys.stderr.write(f"error: {line}\n")
    return MISTAKE


def _without_traceback(message: str) -> str:
    """Return our error message out of the traceback that a DataLoader worker wrapped it in."""
    found = re.match(r"Caught .*\bflyweight\.errors\.\w+: (.*)", message)
    return found[1] if found else message


def _ignore_broken_pipe() -> int:
    """Return success: the reader of our output ended early, as `head` does."""
    # What is still in the buffer would raise again when the process ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _escape_undecodable_names() -> None:
    """Let file names that are not valid text be printed escaped instead of raising an error."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")
