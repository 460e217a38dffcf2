"""Checks of names and paths that need no heavy package, so that they come first."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flyweight.errors import CheckpointError, ConfigError, DataError, FileError, nearest
from flyweight.pipeline.downloads import downloaded, is_url, require_readable_kind

if TYPE_CHECKING:
    from flyweight.config.settings import Config

HUBS = ("timm", "torchvision")
"""Values of `pretrain_weights` that are no paths; the same as `zoo.sources.hub.HUBS`."""
BEST = "best_model.safetensors"
"""The checkpoint of a run folder that is used by default; the same as `engine.run.BEST`."""
ENDS = ("detections", "decoded", "raw")


def ends_of(task: str) -> tuple[str, ...]:
    """Return the last steps that an export for a task may have, the most useful first.

    `detections` has decoding and NMS inside; `decoded` has boxes and scores, the probabilities of a
    classifier or the labels of a segmenter; `raw` is what the network returns.

    Example:
        >>> ends_of("classify")
        ('decoded', 'raw')
    """
    return ENDS if task == "detect" else ENDS[1:]


def require_end(end: str, known: Sequence[str] = ENDS) -> None:
    """Check the last step of an export.

    Raises:
        ConfigError: The step is none of `known`.
    """
    if end not in known:
        raise ConfigError(
            f"--end must be one of {', '.join(known)}. Received '{end}'. {nearest(end, known)}"
        )


def weights_path(name: str) -> Path:
    """Return the file of a name with or without its ending; the original tools left it out.

    The name may be a URL, whose file is downloaded once.

    Raises:
        CheckpointError: There is no such file, or it has weights of the original tools.
    """
    if is_url(name):
        return downloaded(name)
    require_readable_kind(name)
    path = Path(name)
    ended = path.parent / (path.name + ".safetensors")
    found = next((file for file in (path, ended) if file.is_file()), None)
    if found is None:
        raise CheckpointError(
            f"A file of weights must exist. Received '{name}', which is no file. Check the path."
        )
    return found


def checkpoint_path(label: str, config: "Config", weights: str) -> Path:
    """Return the checkpoint to use: the one that is given, else the best one of the run folder.

    Args:
        label: The config's name.
        config: May name a checkpoint in `weights`.
        weights: A checkpoint that takes precedence; may be empty.

    Raises:
        ConfigError: None is given, and the run folder has none.
        CheckpointError: There is no such file.
    """
    given = weights or config.weights
    if given:
        return weights_path(given)
    usual = Path(config.save_dir) / label / BEST
    if usual.is_file():
        return usual
    raise ConfigError(
        f"A checkpoint must be given. Received none, and '{usual}' does not exist. "
        "Add: -o weights=CHECKPOINT"
    )


def require_paths(config: "Config") -> None:
    """Check that the folder of the data and the file of the weights to start from exist.

    Raises:
        DataError: The folder of the data does not exist.
        CheckpointError: The file of the weights does not exist.
    """
    data = config.data
    if not data.made_up and not Path(data.root).is_dir():
        name = data.format.upper() if len(data.format) <= 4 else f"data.format '{data.format}'"
        raise DataError(
            f"A {name} set must be a folder. Received '{data.root}', which is none. Check `root`."
        )
    if config.pretrain_weights is not None and config.pretrain_weights not in HUBS:
        weights_path(config.pretrain_weights)


def starter_path(root: Path, output: Path | None, *, overwrite: bool = False) -> Path:
    """Return the file of a new config for the data set in a folder.

    Args:
        root: The folder.
        output: The file; None means the folder's name with `.yaml`, in the working folder.
        overwrite: The file may exist.

    Raises:
        DataError: The folder does not exist.
        ConfigError: The file's name does not end in `.yaml` or `.yml`.
        FileError: The file exists.
    """
    if not root.is_dir():
        what = "a file" if root.exists() else "nothing"
        raise DataError(
            f"A data set must be a folder. Received '{root}', which is {what}. "
            "Give the folder that holds the images."
        )
    path = output or Path(f"{root.absolute().resolve().name or 'data'}.yaml")
    if path.suffix not in (".yaml", ".yml"):
        raise ConfigError(
            f"A config must be a YAML file. Received '{path}'. Give a name that ends in .yaml."
        )
    require_free([path], overwrite=overwrite)
    return path


def require_free(paths: Iterable[Path], *, overwrite: bool = False) -> None:
    """Check that new files replace no others, unless that is allowed.

    Raises:
        FileError: One of the files exists.
    """
    taken = next((path for path in paths if path.exists()), None)
    if taken is not None and not overwrite:
        raise FileError(
            f"A new file must not replace another. Received '{taken}', which exists. "
            "Give another name with -O, or replace it with --overwrite."
        )
