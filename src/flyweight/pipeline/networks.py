"""Networks of configs: how they are built, and their task."""

from torch import nn

from flyweight.config.preprocessing import Preprocessing
from flyweight.config.settings import Config
from flyweight.errors import ConfigError
from flyweight.zoo import create, is_own_name, spec_of
from flyweight.zoo.sources.own import Builder, build_own, import_own


def create_network(config: Config) -> nn.Module:
    """Return the config's network with fresh weights.

    Raises:
        ConfigError: There is no such network, its arguments are invalid, or it cannot take the
            input size.
    """
    build = own_builder(config)
    if build is None:
        require_sides(config.model, config.preprocessing)
        return create(config.model, **config.arguments)
    return build_own(build, config.model, config.arguments)


def own_builder(config: Config) -> Builder | None:
    """Return the function that builds the config's network, if the network is the user's own.

    Its module is imported. A config may ask for that, because the user wrote it; a checkpoint may
    not.

    Raises:
        ConfigError: There is no such function.
    """
    return import_own(config.model) if is_own_name(config.model) else None


def kind_of(config: Config) -> str:
    """Return the task of the config's network.

    Raises:
        ConfigError: A network of the user's own has none, or it is another than the zoo's.
    """
    if is_own_name(config.model):
        if config.task is None:
            raise ConfigError(
                "The task of your own network must be named. Received "
                f"model '{config.model}' without one. Add: -o task=classify, segment or detect"
            )
        return config.task
    known = spec_of(config.model).task
    if config.task not in (None, known):
        raise ConfigError(
            f"task must be the network's. Received '{config.task}' for "
            f"'{config.model}', whose task is '{known}'. Leave task out."
        )
    return known


def require_sides(model: str, preprocessing: Preprocessing) -> None:
    """Check that a network can take the size of its input.

    Raises:
        ConfigError: A side is no multiple of what the network's row in the table says.
    """
    if is_own_name(model):
        return
    multiple = spec_of(model).multiple
    for side in (preprocessing.height, preprocessing.width):
        if side % multiple:
            raise _not_a_multiple(model, multiple, "input_size", side)


def require_training_sides(config: Config) -> None:
    """Check that a network can take every size that it is to be trained at.

    Raises:
        ConfigError: As `require_sides`.
    """
    if is_own_name(config.model):
        return
    multiple = spec_of(config.model).multiple
    for side in config.augment.multi_scale or ():
        if side % multiple:
            raise _not_a_multiple(config.model, multiple, "augment.multi_scale", side)


def _not_a_multiple(model: str, multiple: int, key: str, side: int) -> ConfigError:
    below, above = side // multiple * multiple, -(-side // multiple) * multiple
    near = f"{below} or {above}" if below else str(above)
    return ConfigError(
        f"The input of '{model}' must have sides that are multiples of {multiple}. Received {side} "
        f"in {key}. Give {near}."
    )
