"""Networks of the user: any function that returns an `nn.Module`, by `package.module:function`.

An import runs the code of the module. So a name is imported only if the user wrote it, on the
command line or in a config. The name in a checkpoint is compared with that name and never imported.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from flyweight.errors import ConfigError, nearest
from flyweight.on_demand import load
from flyweight.origin import Origin, note_origin

Builder = Callable[..., nn.Module]
_NAME = re.compile(r"(?P<module>[^\W\d]\w*(\.[^\W\d]\w*)*):(?P<function>[^\W\d]\w*(\.[^\W\d]\w*)*)")


def is_own_name(name: str) -> bool:
    """Return whether `name` has the form of a network of the user.

    Example:
        >>> is_own_name("mypackage.networks:build"), is_own_name("timm/resnet18")
        (True, False)
    """
    return ":" in name


def own_name(build: Builder) -> str:
    """Return the name of the networks of `build` in a checkpoint.

    Example:
        >>> own_name(own_name)
        'flyweight.zoo.sources.own:own_name'
    """
    return f"{build.__module__}:{build.__qualname__}"


def import_own(name: str) -> Builder:
    """Import the module of `name`, which runs its code, and return the function.

    Modules are searched as Python does, the current folder first.

    Args:
        name: `package.module:function`, as the user wrote it. Never take the name from a file.

    Raises:
        ConfigError: The name has another form, or there is no such module or function.
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
        found: Any = load(module_name)
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
            "The builder of your network must be a function. "
            f"Received '{name}', which is of type {type(found).__name__}. Name the function."
        )
    builder: Builder = found
    return builder


def build_own(build: Builder, name: str, arguments: dict[str, Any]) -> nn.Module:
    """Return the network that the user's function builds, with its origin recorded.

    Args:
        build: The function.
        name: Its name for checkpoints.
        arguments: Keyword arguments, JSON values.

    Raises:
        ConfigError: The function does not take the arguments, or returns no module.
    """
    try:
        model = build(**arguments)
    except TypeError as error:
        listed = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise ConfigError(
            f"'{name}' must take the given arguments. Received {listed}: {error}. "
            "Correct its parameters, or model_args in the config."
        ) from error
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"'{name}' must return a torch.nn.Module. Received a {type(model).__name__}. "
            "Return the network."
        )
    note_origin(model, Origin(architecture=name, arguments=dict(arguments)))
    return model
