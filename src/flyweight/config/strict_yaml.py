"""Strict YAML: a mapping may contain every key only once."""

from typing import Any

import yaml

from flyweight.errors import ConfigError


def load_yaml(text: str, name: str) -> Any:
    """Return the values of a YAML text; a repeated key is an error, where YAML takes the last.

    Args:
        text: The YAML.
        name: Name of the text, for error messages.

    Raises:
        ConfigError: The text is no YAML, or a mapping contains a key twice; the message names the
            line.
    """
    loader = _Loader(text)
    loader.name = name
    try:
        return loader.get_single_data()
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(
            f"A config must be YAML. Received '{name}' with: {' '.join(str(error).split())}. "
            "Correct the file there."
        ) from error
    finally:
        loader.dispose()


class _Loader(yaml.SafeLoader):
    # Checked here, because merges (<<) have already added keys when mappings are constructed.
    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[Any] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise ConfigError(
                    f"A config must say every key once. Received '{key.value}' again, where: "
                    f"{self.name}:{key.start_mark.line + 1}. Remove one of the two."
                )
            seen.add(key.value)
        return node
