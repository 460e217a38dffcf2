"""Loading of modules on first use, from one visible table of names.

Commands, networks of other libraries and runtimes each need heavy packages. A table maps a name to
the place it lives in, and that module is imported when the name is first used, so that a command
pays only for what it does.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def load(reference: str) -> Any:
    """Return what `reference` names.

    Args:
        reference: A module, `package.module`, or a name in it, `package.module:name`.

    Raises:
        ImportError: There is no such module, or an optional package that it needs is not installed.
        AttributeError: The module has no such name.

    Example:
        >>> load("json:dumps")([1])
        '[1]'
    """
    module, _, name = reference.partition(":")
    found = import_module(module)
    return getattr(found, name) if name else found


def names_on_demand(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package whose names load on first use (PEP 562).

    Args:
        package: The package's `__name__`, for the error message.
        homes: Name to the reference that `load` takes.
    """

    def __getattr__(name: str) -> Any:  # noqa: N807 - it is the package's
        if name in homes:
            return load(homes[name])
        raise AttributeError(f"module '{package}' has no attribute '{name}'")

    return __getattr__
