"""The door: arguments in, exit status out, one line for a mistake."""

import gc
import os
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import typer

MISTAKE, STOPPED = 2, 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave the process with its status.

    Status 0 is success, 2 a mistake that the message says how to mend, 130 an interruption.
    """
    # Importing torch makes a million objects that all stay: looking through them for garbage again
    # and again would take a quarter of the time that a dry run takes.
    gc.set_threshold(100_000, 50, 50)
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return its status."""
    import typer

    from flyweight.cli.app import app
    from flyweight.errors import FlyweightError

    _print_any_name()
    try:
        command = typer.main.get_command(app)
        _require_known(arguments, command)
        # Typer turns some exceptions into a status of its own, which it returns.
        status = command(spread_overrides(arguments), prog_name="flyweight", standalone_mode=False)
        sys.stdout.flush()
    except FlyweightError as error:
        return _mistake(str(error))
    except typer.TyperException as error:
        return _mistake(_usage_letter(error))
    except (KeyboardInterrupt, typer.Abort):
        status = STOPPED
    except BrokenPipeError:
        return _reader_left()
    except SystemExit as ending:  # Typer's answer to a broken pipe.
        return _reader_left() if ending.code == 1 else int(ending.code or 0)
    except OSError as error:
        return _mistake(_system_letter(error))
    if status == STOPPED:
        sys.stderr.write("stopped\n")
    return status if isinstance(status, int) else 0


def spread_overrides(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with one `-o` before each override.

    The originals took several after one `-o`; both ways work.

    Example:
        >>> spread_overrides(["eval", "-o", "weights=a", "input_size=320", "--json"])
        ['eval', '-o', 'weights=a', '-o', 'input_size=320', '--json']
        >>> spread_overrides(["predict", "-o", "weights=a", "cat.png"])
        ['predict', '-o', 'weights=a', 'cat.png']
    """
    spread: list[str] = []
    state = "outside"
    for argument in arguments:
        if argument in {"-o", "--opt"}:
            state = "first"
            continue
        follows = state == "more" and re.match(r"[\w.]+=", argument)
        if state == "first" or follows:
            # A first word without '=' is passed on too, to be told what it should look like.
            spread += ["-o", argument]
            state = "more"
        else:
            state = "outside"
            spread.append(argument)
    return [*spread, "-o"] if state == "first" else spread


def _require_known(arguments: Sequence[str], group: Any) -> None:
    from flyweight.errors import ConfigError, nearest

    name = next((argument for argument in arguments if not argument.startswith("-")), None)
    if name is not None and name not in group.commands:
        raise ConfigError(
            f"A command must be one of flyweight's. Received '{name}'. "
            f"{nearest(name, group.commands)} List them with: flyweight --help"
        )


def _usage_letter(error: "typer.TyperException") -> str:
    """Return what ails the options, in the words of our other letters."""
    from flyweight.errors import nearest

    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "flyweight"
    option = getattr(error, "option_name", None)
    if context is not None and type(error).__name__ == "NoSuchOption":
        known = [name for item in context.command.params for name in item.opts if "--" in name]
        return (
            f"An option must be one of '{path}'. Received '{option}'. "
            f"{nearest(str(option), known)} List them with: {path} --help"
        )
    return f"{error.format_message().rstrip('.')}. See: {path} --help"


def _system_letter(error: OSError) -> str:
    """Return an error of the system that no room could say better."""
    where = f" at '{error.filename}'" if error.filename else ""
    return (
        "Files and folders must be there and permitted to use. "
        f"Received: {error.strerror or error}{where}. Correct the path or free space, and repeat."
    )


def _mistake(message: str) -> int:
    sys.stderr.write(f"error: {' '.join(_own_words(message).split())}\n")
    return MISTAKE


def _own_words(message: str) -> str:
    """Return our own letter from one that a process preparing images wrapped in its traceback."""
    found = re.findall(r"^flyweight\.errors\.\w+: (.*)$", message, re.MULTILINE)
    return str(found[-1]) if message.startswith("Caught ") and found else message


def _reader_left() -> int:
    """The reader of our output went away, as `head` does; that is no mistake."""
    # What is still in the buffer would raise again when the process ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _print_any_name() -> None:
    """Let names that are no valid text be printed, escaped, instead of ending in an error."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")
