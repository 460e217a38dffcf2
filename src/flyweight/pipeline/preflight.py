"""What can be refused before anything heavy is loaded: names and paths."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flyweight.errors import CheckpointError, ConfigError, DataError, nearest

if TYPE_CHECKING:
    from flyweight.config.settings import Config

HUBS = ("timm", "torchvision")
"""Words that `pretrain_weights` may be instead of a path, as in `zoo.hub.HUBS`."""
ENDS = ("detections", "decoded", "raw")


def ends_of(task: str) -> tuple[str, ...]:
    """Return what an export for a task may end in, the most useful first.

    `detections` has decoding and NMS inside; `decoded` has boxes and scores, the probabilities of a
    classifier or the labels of a segmenter; `raw` is what the network returns.

    Example:
        >>> ends_of("classify")
        ('decoded', 'raw')
    """
    return ENDS if task == "detect" else ENDS[1:]


def require_end(end: str, known: Sequence[str] = ENDS) -> None:
    """Check what an export ends in.

    Raises:
        ConfigError: It is none of `known`.
    """
    if end not in known:
        raise ConfigError(
            f"--end must be one of {', '.join(known)}. Received '{end}'. {nearest(end, known)}"
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
    if not data.made_up and not Path(data.root).is_dir():
        name = data.format.upper() if len(data.format) <= 4 else f"data.format '{data.format}'"
        raise DataError(
            f"A {name} set must be a folder. Received '{data.root}', which is none. Check `root`."
        )
    if config.pretrain_weights is not None and config.pretrain_weights not in HUBS:
        weights_path(config.pretrain_weights)
