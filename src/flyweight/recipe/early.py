"""What can be refused before anything heavy is loaded: names and paths."""

from pathlib import Path
from typing import TYPE_CHECKING

from flyweight.errors import CheckpointError, ConfigError, DataError, nearest

if TYPE_CHECKING:
    from flyweight.recipe.config import Config

ENDS = ("detections", "decoded", "raw")


def require_end(end: str) -> None:
    """Check what an export ends in: `detections` with NMS inside, `decoded`, or `raw`.

    Raises:
        ConfigError: It is none of these.
    """
    if end not in ENDS:
        raise ConfigError(
            f"--end must be one of {', '.join(ENDS)}. Received '{end}'. {nearest(end, ENDS)}"
        )


def weights_path(name: str) -> Path:
    """Return the file that `name` means: with or without its ending, as the originals wrote it.

    Raises:
        CheckpointError: There is no such file.
    """
    path = Path(name)
    ended = path.parent / (path.name + ".safetensors")
    found = next((file for file in (path, ended) if file.is_file()), None)
    if found is None:
        raise CheckpointError(
            f"A file of weights must exist. Received '{name}', which is no file. Check the path."
        )
    return found


def checkpoint_path(label: str, config: "Config", weights: str) -> Path:
    """Return the checkpoint to use: as given, else the best one of the config's folder.

    Args:
        label: The config's name.
        config: May name weights itself.
        weights: What the command line says beside the config; may be empty.

    Raises:
        ConfigError: None was given and none is there.
        CheckpointError: There is no such file.
    """
    given = weights or config.weights
    if given:
        return weights_path(given)
    usual = Path(config.save_dir) / label / "best_model.safetensors"
    if usual.is_file():
        return usual
    raise ConfigError(
        f"A checkpoint must be given. Received none, and '{usual}' does not exist. "
        "Add: -o weights=CHECKPOINT"
    )


def require_paths(config: "Config") -> None:
    """Check that the data's folder and the weights to start from are there.

    Raises:
        DataError: There is no folder of the data's name.
        CheckpointError: There are no weights to start from.
    """
    data = config.data
    if data.format != "digits" and not Path(data.root).is_dir():
        raise DataError(
            f"A {data.format.upper()} set must be a folder. Received '{data.root}', which is none. "
            "Check `root`."
        )
    if config.pretrain_weights is not None:
        weights_path(config.pretrain_weights)
