"""YAML that says every key once."""

from typing import Any

import yaml

from flyweight.errors import ConfigError


def load_yaml(text: str, name: str) -> Any:
    """Return what a YAML text says, refusing a key given twice: YAML would take the last.

    Args:
        text: The YAML.
        name: What to call it in a refusal.

    Raises:
        ConfigError: It is no YAML, or a mapping has a key twice; the line is named.
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
    # Here and not where mappings are made: by then, merges (<<) have put keys into them.
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
