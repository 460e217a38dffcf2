"""The command line: results on stdout, progress on stderr, exit 2 for a user's mistake."""

from flyweight.cli.main import main

__all__ = ["main"]
