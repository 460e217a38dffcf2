"""Checks of arguments that several builders take."""

from flyweight.errors import ConfigError


def require_num_classes(num_classes: object) -> None:
    """Check that `num_classes` is a number of classes.

    Raises:
        ConfigError: It is not a whole number above 0.
    """
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 1:
        raise ConfigError(
            f"num_classes must be a whole number of at least 1. Received: {num_classes!r}. "
            "Give the number of classes without background."
        )


def require_factor(name: str, value: object) -> None:
    """Check that `value`, the argument `name`, is a factor for numbers of channels.

    Raises:
        ConfigError: It is not a number within (0, 4].
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 4:
        raise ConfigError(
            f"{name} must be a number above 0 and at most 4. Received: {value!r}. "
            "1.0 is the original network."
        )
