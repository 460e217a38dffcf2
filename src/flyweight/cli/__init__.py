"""The command line: results on stdout, progress on stderr, exit 2 for a user's mistake.

The file of a command loads when it is first used: `flyweight.cli.predict`.
"""

from flyweight.cli.app import COMMANDS
from flyweight.cli.main import main
from flyweight.on_demand import names_on_demand

__all__ = ["main"]

_FILES = [entry.function.partition(":")[0] for entry in COMMANDS.values()]
__getattr__ = names_on_demand(__name__, {file.rpartition(".")[2]: file for file in _FILES})
