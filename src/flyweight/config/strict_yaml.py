"""Strict YAML: a mapping may contain every key only once."""

from typing import Any

from flyweight.errors import ConfigError
from flyweight.untrusted.failures import refusing
from flyweight.untrusted.yaml_values import RepeatedKeyError, parse_yaml


def load_yaml(text: str, name: str) -> Any:
    """Return the values of a YAML text; a repeated key is an error, where YAML takes the last.

    Args:
        text: The YAML.
        name: Name of the text, for error messages.

    Raises:
        ConfigError: The text is no YAML, is larger than `untrusted.yaml_values` reads, or a mapping
            contains a key twice; the message names the line.
    """
    with refusing(ConfigError, "A config must be YAML.", f"'{name}'", "Correct the file there."):
        try:
            return parse_yaml(text, unique_keys=True)
        except RepeatedKeyError as error:
            raise ConfigError(
                f"A config must say every key once. Received '{error.key}' again, where: "
                f"{name}:{error.line}. Remove one of the two."
            ) from error
