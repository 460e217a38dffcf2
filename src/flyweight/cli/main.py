"""The door: arguments in, exit status out, one line for a mistake."""

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave the process with its status.

    Status 0 is success, 2 a mistake that the message says how to mend, 130 an interruption.
    """
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return its status."""
    import click

    from flyweight.cli.app import app
    from flyweight.errors import FlyweightError

    try:
        app(spread_overrides(arguments), prog_name="flyweight", standalone_mode=False)
    except FlyweightError as error:
        return _mistake(str(error))
    except click.exceptions.Exit as ending:
        return ending.exit_code
    except click.ClickException as error:
        return _mistake(f"{error.format_message()} See: flyweight --help")
    except (KeyboardInterrupt, click.Abort):
        sys.stderr.write("stopped\n")
        return 130
    except BrokenPipeError:
        # The reader of our output went away, as `head` does; that is no mistake.
        sys.stderr.close()
        return 0
    return 0


def spread_overrides(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with one `-o` before each override.

    The originals took several after one `-o`; both ways work.

    Example:
        >>> spread_overrides(["eval", "-o", "weights=a", "input_size=320", "--json"])
        ['eval', '-o', 'weights=a', '-o', 'input_size=320', '--json']
    """
    spread: list[str] = []
    inside = False
    for argument in arguments:
        if argument in {"-o", "--opt"}:
            inside = True
        elif inside and "=" in argument and not argument.startswith("-"):
            spread += ["-o", argument]
        else:
            inside = False
            spread.append(argument)
    return spread


def _mistake(message: str) -> int:
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    return 2
