"""One YAML file, and the whole chain from it: train, prune, fine-tune, export, measure, report."""

from flyweight.config.settings import Config, known_configs, load_config

__all__ = ["Config", "known_configs", "load_config"]
