"""Source of a model: a checkpoint, found by its path or by the config of the run that made it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from flyweight import on_demand
from flyweight.config.reading import load_config, touched
from flyweight.errors import ConfigError
from flyweight.pipeline.preflight import checkpoint_path, weights_path

if TYPE_CHECKING:
    from flyweight.config.settings import Config
    from flyweight.pipeline.inputs import Loaded

# Loaded when a model is opened: a path that is wrong is refused without waiting for torch.
_OPEN = "flyweight.pipeline.inputs:open_with_overrides"


@dataclass(frozen=True)
class ModelSource:
    """Where a model is found.

    Attributes:
        config: A built-in name or a file; empty where the weights say everything.
        overrides: `key=value`, as after `-o`.
        weights: The checkpoint; empty for the one that the config names, or else for the best one
            in the config's run folder.
    """

    config: str = ""
    overrides: tuple[str, ...] = ()
    weights: str = ""

    @cached_property
    def named(self) -> "tuple[str, Config] | None":
        """The config's name and the config, if one is given.

        Raises:
            ConfigError: The config is invalid.
        """
        return load_config(self.config, self.overrides) if self.config else None

    def find(self) -> tuple[str, Path]:
        """Return a name for the model and the path of its checkpoint.

        Raises:
            ConfigError: Neither a config nor weights are given.
            CheckpointError: There is no such file.
        """
        if self.named is not None:
            label, config = self.named
            return label, checkpoint_path(label, config, self.weights)
        alone = self._weights_alone()
        given = self.weights or alone
        if not given:
            raise ConfigError(
                "A checkpoint must be given. Received neither -c nor -o weights=. "
                "Add: -o weights=CHECKPOINT"
            )
        path = weights_path(given)
        return path.stem, path

    def open(self) -> "tuple[str, Path, Loaded]":
        """Return the name, the path and the model; overrides take precedence over what was saved.

        Raises:
            ConfigError: As `find`.
            CheckpointError: The file is damaged, or of another network than the config's.
        """
        name, path = self.find()
        config = None if self.named is None else self.named[1]
        return name, path, on_demand.load(_OPEN)(path, config, touched(self.overrides))

    def _weights_alone(self) -> str:
        others = touched(self.overrides) - {"weights"}
        if others:
            raise ConfigError(
                f"Without -c, -o can say weights= alone. Received '{min(others)}='. Add: -c CONFIG"
            )
        return next((text.partition("=")[2] for text in reversed(self.overrides)), "")
