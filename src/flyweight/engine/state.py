"""The state of a run on disk: everything that going on after a kill needs."""

import io
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flyweight.config.training import HARMLESS, TrainConfig
from flyweight.errors import CheckpointError, ConfigError
from flyweight.files import replacing

FORMAT = 1


@dataclass
class Standing:
    """How a run stands.

    Attributes:
        step: Optimizer steps that are done.
        best: Numbers of the best evaluation so far.
        last: Numbers of the last evaluation.
        best_step: Steps that were done at the best evaluation.
        idle: Evaluations in a row since the best one.
        seconds: Time spent, over all sessions.
    """

    step: int = 0
    best: dict[str, float] | None = None
    last: dict[str, float] = field(default_factory=dict)
    best_step: int | None = None
    idle: int = 0
    seconds: float = 0.0


def state_path(folder: Path) -> Path:
    """Return where a run in `folder` keeps its state."""
    return folder / "state" / "last.ckpt"


def save_state(
    path: Path, config: TrainConfig, standing: Standing, tensors: Mapping[str, Any]
) -> None:
    """Write a state, whole or not at all.

    Raises:
        FileError: The disk is full or read-only.
    """
    document = {
        "format": FORMAT,
        "config": config.model_dump(mode="json"),
        "standing": asdict(standing),
        **tensors,
    }
    # Through memory: torch's own writer turns a full disk into an error without its reason.
    buffer = io.BytesIO()
    torch.save(document, buffer)
    with replacing(path) as draft:
        draft.write_bytes(buffer.getbuffer())


def load_state(path: Path) -> tuple[Standing, dict[str, Any]]:
    """Read what `save_state` wrote, without unpickling anything but tensors and plain values.

    Returns:
        How the run stood, and the whole document with its tensors on the CPU.

    Raises:
        CheckpointError: There is no such file, or it is not a state of this format.
    """
    try:
        document = torch.load(path, map_location="cpu", weights_only=True)
        if document["format"] != FORMAT:
            raise CheckpointError(
                f"A training state must be of format {FORMAT}. Received format "
                f"{document['format']!r} in '{path}'. Train again without resume."
            )
        return Standing(**document["standing"]), document
    except OSError as error:
        raise CheckpointError(
            f"A training state must be readable. Received: {error.strerror or error}, at '{path}'. "
            "Give the path of a state/last.ckpt, or train without resume."
        ) from error
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"A training state must be a whole file that this tool wrote. '{path}' is not. "
            "Give another one, or train without resume."
        ) from error


def require_same_config(config: TrainConfig, saved: Mapping[str, Any], path: Path) -> None:
    """Refuse to go on with values that would change what is computed.

    Raises:
        ConfigError: Names the first key that differs, with both values.
    """
    given = config.model_dump(mode="json")
    for key in sorted((given.keys() | saved.keys()) - HARMLESS):
        if given.get(key) != saved.get(key):
            raise ConfigError(
                f"A resumed run must keep its config. '{key}' was {saved.get(key)!r} in '{path}' "
                f"and is {given.get(key)!r} now. Set it back, or train without resume."
            )


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Copy `weights` into `model`, if every name and shape is the model's own.

    Raises:
        CheckpointError: Names the first tensor that differs, with both shapes.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise CheckpointError(
                f"A resumed run must keep its model. '{name}' has shape {wanted.get(name)} in the "
                f"model and {found.get(name)} in '{path}'. Build the same model, or train without "
                "resume."
            )
    model.load_state_dict(weights)
