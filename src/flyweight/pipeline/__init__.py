"""One YAML file, and the whole chain from it: train, prune, fine-tune, export, measure, report."""

from flyweight.config.reading import known_configs, load_config
from flyweight.config.settings import Config

__all__ = ["Config", "known_configs", "load_config"]
