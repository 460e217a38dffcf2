"""Files that settings name: where they are, and the digests of their contents."""

from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors.torch import load_file

from flyweight.config.cuts import BUILT_IN, THIS_RUN
from flyweight.config.settings import Config
from flyweight.digests import digest_of_file, digest_of_value, digest_of_weights
from flyweight.errors import CheckpointError
from flyweight.pipeline.preflight import HUBS, weights_path
from flyweight.sensitivity import builtin_curves
from flyweight.untrusted.failures import refusing
from flyweight.untrusted.file_bytes import require_file


def digest_of_setting(config: Config, path: str) -> str | None:
    """Return a digest of the contents of the file or folder that a setting names.

    Args:
        config: Has the setting.
        path: Its dotted path.

    Returns:
        None where the setting names nothing; the word itself where it is one with a meaning of its
        own, such as a hub of weights.

    Raises:
        FlyweightError: The file does not exist or cannot be read.
    """
    return _DIGESTS[path](config)


def digest_of_checkpoint(path: Path) -> str:
    """Return a digest of the weights in a file: of its tensors, not of the file.

    Raises:
        CheckpointError: The file is damaged.
        FileError: It cannot be read.
    """
    if path.suffix != ".safetensors":
        return digest_of_file(path)
    must = "A file of weights must be a whole .safetensors file."
    with refusing(
        CheckpointError, must, f"'{path}'", "Save the model again, or give another file."
    ):
        require_file(path)
        return digest_of_weights(load_file(path))


def _pretrained(config: Config) -> str | None:
    named = config.pretrain_weights
    if named is None or named in HUBS:
        return named
    return digest_of_checkpoint(weights_path(named))


def _ground_truth(config: Config) -> str | None:
    folder = config.data.ground_truth
    if folder is None:
        return None
    files = sorted(path for path in (Path(config.data.root) / folder).glob("*") if path.is_file())
    return digest_of_value({path.name: digest_of_file(path) for path in files})


def _scan(config: Config) -> str | None:
    named = config.prune.scan
    if named in (None, "", THIS_RUN):
        return named
    path = builtin_curves(config.model) if named == BUILT_IN else Path(str(named))
    return digest_of_file(path)


def _latency_table(config: Config) -> str | None:
    named = config.prune.latency_table
    return named if named in (None, "", THIS_RUN) else digest_of_file(Path(str(named)))


def _teacher(config: Config) -> str | None:
    named = config.distill.teacher or config.distill.teacher_pretrained
    return None if named is None else digest_of_checkpoint(weights_path(named))


_DIGESTS: Mapping[str, Callable[[Config], str | None]] = {
    "pretrain_weights": _pretrained,
    "data.ground_truth": _ground_truth,
    "prune.scan": _scan,
    "prune.latency_table": _latency_table,
    "distill.teacher": _teacher,
    "distill.teacher_pretrained": _teacher,
}
"""The settings that name files, and how each becomes a digest."""
