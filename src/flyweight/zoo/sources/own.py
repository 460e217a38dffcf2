"""A user's own network: any function that returns an `nn.Module`, by `package.module:function`.

Importing a module runs it. So a name is followed only where the user wrote it: on the command line
or in a config. What a checkpoint says of its network is compared with that, never followed.
"""

import re
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

from flyweight.errors import ConfigError, nearest
from flyweight.origin import Origin, note_origin

Builder = Callable[..., nn.Module]
_NAME = re.compile(r"(?P<module>[^\W\d]\w*(\.[^\W\d]\w*)*):(?P<function>[^\W\d]\w*(\.[^\W\d]\w*)*)")


def is_own_name(name: str) -> bool:
    """Return whether `name` is written like a user's own network.

    Example:
        >>> is_own_name("mypackage.networks:build"), is_own_name("timm/resnet18")
        (True, False)
    """
    return ":" in name


def own_name(build: Builder) -> str:
    """Return what a checkpoint calls the networks of `build`.

    Example:
        >>> own_name(own_name)
        'flyweight.zoo.sources.own:own_name'
    """
    return f"{build.__module__}:{build.__qualname__}"


def import_own(name: str) -> Builder:
    """Return the function that `name` means; its module is imported, and thereby run.

    Modules are looked for as Python does, the current folder first.

    Args:
        name: `package.module:function`, as the user wrote it. Never take it from a file.

    Raises:
        ConfigError: It is written otherwise, or there is no such module or function.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise ConfigError(
            "A network of your own must be written package.module:function. "
            f"Received '{name}'. Example: -o model=mypackage.networks:build"
        )
    module_name, function = match["module"], match["function"]
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"The module of your own network must be importable. Received '{name}': {error}. "
            f"Run in the folder that holds '{module_name.partition('.')[0]}', or install it."
        ) from error
    for part in function.split("."):
        if not hasattr(found, part):
            public = [key for key in vars(found) if not key.startswith("_")]
            raise ConfigError(
                f"The function that builds your network must exist. Received '{name}', and "
                f"'{module_name}' has no '{part}'. {nearest(part, public)}"
            )
        found = getattr(found, part)
    if not callable(found):
        raise ConfigError(
            "What builds your network must be a function. "
            f"Received '{name}', which is of type {type(found).__name__}. Name the function."
        )
    builder: Builder = found
    return builder


def build_own(build: Builder, name: str, arguments: dict[str, Any]) -> nn.Module:
    """Return the network that a user's function makes of `arguments`; its lineage is noted.

    Args:
        build: The function.
        name: What a checkpoint is to call it.
        arguments: Keyword arguments, JSON values.

    Raises:
        ConfigError: It does not take them, or returns something else.
    """
    try:
        model = build(**arguments)
    except TypeError as error:
        listed = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise ConfigError(
            f"'{name}' must take the arguments it is given. Received {listed}: {error}. "
            "Correct its parameters, or model_args in the config."
        ) from error
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"'{name}' must return a torch.nn.Module. Received a {type(model).__name__}. "
            "Return the network."
        )
    note_origin(model, Origin(architecture=name, arguments=dict(arguments)))
    return model
