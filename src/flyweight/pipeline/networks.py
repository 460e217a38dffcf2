"""The network that a config means, and what it is for."""

from torch import nn

from flyweight.config.settings import Config
from flyweight.errors import ConfigError
from flyweight.zoo import create, is_own_name, spec_of
from flyweight.zoo.sources.own import Builder, build_own, import_own


def create_network(config: Config) -> nn.Module:
    """Return the config's network with fresh weights.

    Raises:
        ConfigError: There is no such network, or its arguments cannot be meant.
    """
    build = own_builder(config)
    if build is None:
        return create(config.model, **config.arguments)
    return build_own(build, config.model, config.arguments)


def own_builder(config: Config) -> Builder | None:
    """Return what builds the config's network where it is the user's own.

    Its module is imported: the config is the user's, unlike a checkpoint.

    Raises:
        ConfigError: There is no such function.
    """
    return import_own(config.model) if is_own_name(config.model) else None


def kind_of(config: Config) -> str:
    """Return the task of the config's network.

    Raises:
        ConfigError: It is not told for a network of the user's own, or is another than the zoo's.
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
            f"task must be what the network is for. Received '{config.task}' for "
            f"'{config.model}', which is for '{known}'. Leave task out."
        )
    return known
