"""State of a training run on disk: everything that a run needs to continue after a kill.

Nothing random has to be saved: batches, dropout and augmentation are functions of the seed, the
step and the rank (see `loop.seed_step`).
"""

from collections.abc import Mapping
from dataclasses import asdict, field
from pathlib import Path
from typing import Any

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from flyweight.config.training import HARMLESS, TrainConfig
from flyweight.engine.tensor_document import read_document, write_document
from flyweight.errors import CheckpointError, ConfigError
from flyweight.untrusted.file_bytes import open_file
from flyweight.workspace import MadeFrom, differences

FORMAT = 2
_KIND = "flyweight_training_state"
_WEIGHTS = ("model", "ema", "objective", "objective_ema")
_ZIP = b"PK"  # What torch.save writes, as flyweight 0.1.0 did.


@dataclass(config=ConfigDict(strict=True, extra="forbid"))
class RunStatus:
    """How far a run is.

    Attributes:
        step: Optimizer steps that are done.
        best: Metrics of the best evaluation so far.
        last: Metrics of the last evaluation.
        best_step: Steps that were done at the best evaluation.
        idle: Evaluations in a row since the best one.
        seconds: Time spent, over all sessions.
        means: Running mean of every term of the loss.
    """

    step: int = 0
    best: dict[str, float] | None = None
    last: dict[str, float] = field(default_factory=dict)
    best_step: int | None = None
    idle: int = 0
    seconds: float = 0.0
    means: dict[str, float] = field(default_factory=dict)

    def add_terms(self, terms: Mapping[str, float], window: int) -> None:
        """Add the terms of the loss of the last step to their running means.

        The mean is that of all steps at first, and then an exponential one over about `window`
        steps.
        """
        weight = 1 / max(1, min(self.step, window))
        for name, value in terms.items():
            mean = self.means.get(name, value)
            self.means[name] = mean + weight * (value - mean)


def state_path(folder: Path) -> Path:
    """Return the file of the state of a run in `folder`."""
    return folder / "state" / "last.safetensors"


def old_state_path(folder: Path) -> Path:
    """Return the file in which flyweight 0.1.0 kept the state of a run in `folder`."""
    return folder / "state" / "last.ckpt"


def remove_states(folder: Path) -> None:
    """Remove the state of an earlier run in `folder`, which a new run must not resume."""
    state_path(folder).unlink(missing_ok=True)
    old_state_path(folder).unlink(missing_ok=True)


def remove_foreign_state(folder: Path, model: nn.Module) -> None:
    """Remove the state of an earlier run in `folder` if its network has other tensors than `model`.

    A state that cannot be read is left; to resume from it says why.
    """
    try:
        _, document = load_state(state_path(folder))
    except CheckpointError:
        return
    saved = document.get("model")
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if isinstance(saved, Mapping) and wanted != {
        name: tensor.shape for name, tensor in saved.items() if isinstance(tensor, Tensor)
    }:
        remove_states(folder)


def save_state(
    path: Path, config: TrainConfig, status: RunStatus, document: Mapping[str, Any]
) -> None:
    """Write a state, completely or not at all.

    Args:
        path: The file.
        config: The run's settings; `require_same_config` compares them on resume.
        status: How far the run is.
        document: Tensors and plain values, nested as they like.

    Raises:
        FileError: The disk is full or read-only.
    """
    written = {
        "format": FORMAT,
        "config": config.model_dump(mode="json"),
        "status": asdict(status),
        **document,
    }
    write_document(path, _KIND, written)


def load_state(path: Path) -> tuple[RunStatus, dict[str, Any]]:
    """Read what `save_state` wrote.

    Returns:
        How far the run was, and the whole document with its tensors on the CPU.

    Raises:
        CheckpointError: There is no such file, it is damaged, or another version wrote it.
    """
    try:
        document = read_document(path, _KIND)
        if document["format"] != FORMAT:
            raise CheckpointError(
                f"A training state must be of format {FORMAT}. Received format "
                f"{document['format']!r} in '{path}'. Train again without resume."
            )
        status = RunStatus(**document["status"])
        if status.step < 0 or not status.seconds >= 0:
            raise ValueError("a run that has not begun")
        return status, document
    except OSError as error:
        raise CheckpointError(
            f"A training state must be readable. Received: {error.strerror or error}, at '{path}'. "
            "Give the path of a state/last.safetensors, or train without resume."
        ) from error
    except CheckpointError:
        raise
    except Exception as error:  # Of pydantic and of whatever a damaged document leads to.
        if _begins_with(path, _ZIP):
            raise _of_another_version(path) from error
        raise _damaged(path) from error


def load_run(path: Path) -> tuple[RunStatus, dict[str, Any]]:
    """Read the state of a training run, and check that it has all parts that `fit` needs.

    Returns:
        As `load_state`. The document has `config`, `hooks` (name and state of each), `model`,
        `ema`, `objective`, `objective_ema` (tensors by name, or None), `optimizer`, `precision`.

    Raises:
        CheckpointError: As `load_state`, or a part is missing or of another type.
    """
    status, document = load_state(path)
    sound = (
        all(isinstance(document.get(name), dict) for name in ("config", "optimizer", "precision"))
        and all(name in document and _are_weights(document[name]) for name in _WEIGHTS)
        and document["model"] is not None
        and isinstance(document.get("hooks"), list)
        and all(isinstance(one, tuple) and len(one) == 2 for one in document["hooks"])
    )
    if not sound:
        raise _damaged(path)
    return status, document


def _are_weights(value: object) -> bool:
    if value is None:
        return True
    return isinstance(value, dict) and all(isinstance(one, Tensor) for one in value.values())


def refuse_old_state(folder: Path) -> None:
    """Refuse to resume a run whose only state is one of flyweight 0.1.0.

    Raises:
        CheckpointError: There is such a state.
    """
    path = old_state_path(folder)
    if path.exists() and not state_path(folder).exists():
        raise _of_another_version(path)


def _damaged(path: Path) -> CheckpointError:
    return CheckpointError(
        f"A training state must be a complete file that flyweight wrote. '{path}' is not. "
        "Give another file, or train without resume."
    )


def _of_another_version(path: Path) -> CheckpointError:
    return CheckpointError(
        f"A training state must be a .safetensors file of this version. '{path}' is not: it is a "
        "pickle, as flyweight 0.1.0 wrote it. Finish this run with version 0.1.0, or train again "
        "without resume; checkpoints of version 0.1.0 can be used as pretrain_weights."
    )


def _begins_with(path: Path, magic: bytes) -> bool:
    with open_file(path) as file:
        return file.read(len(magic)) == magic


def require_same_config(config: TrainConfig, saved: Mapping[str, Any], path: Path) -> None:
    """Refuse to resume with settings that would change what is computed.

    Raises:
        ConfigError: Names the first key that differs, with both values.
    """
    given = config.model_dump(mode="json", exclude=set(HARMLESS))
    defaults = given.keys() - config.model_dump(mode="json", exclude_defaults=True).keys()
    known = {key: value for key, value in saved.items() if key not in HARMLESS}
    for one in differences(known, MadeFrom(given, frozenset(defaults))):
        raise ConfigError(
            f"A resumed run must keep its config. '{one.name}' was {one.was!r} in '{path}' "
            f"and is {one.now!r} now. Set it back, or train without resume."
        )


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Copy `weights` into `model`, if names, shapes and types are exactly the model's.

    Raises:
        CheckpointError: Names the first tensor that differs, with both shapes or types.
    """
    wanted, found = _described(model.state_dict()), _described(weights)
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            place = 0 if _shape(wanted, name) != _shape(found, name) else 1
            what = ("shape", "type")[place]
            raise CheckpointError(
                f"A resumed run must keep its model. '{name}' has {what} "
                f"{_part(wanted, name, place)} in the model and {_part(found, name, place)} in "
                f"'{path}'. Build the same model, or train without resume."
            )
    model.load_state_dict(weights)


Described = dict[str, tuple[tuple[int, ...], str]]


def _described(tensors: Mapping[str, Tensor]) -> Described:
    return {name: (tuple(one.shape), str(one.dtype)) for name, one in tensors.items()}


def _part(tensors: Described, name: str, place: int) -> object:
    return tensors[name][place] if name in tensors else None


def _shape(tensors: Described, name: str) -> object:
    return _part(tensors, name, 0)
