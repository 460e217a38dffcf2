"""One file that describes itself: architecture, plans, weights, preprocessing, labels, metrics.

The file is `.safetensors`: a JSON header and raw tensors. Loading builds the architecture on the
meta device, applies the plans, and puts each tensor where its name says; nothing is unpickled.
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from flyweight.errors import CheckpointError, ConfigError, PlanError, nearest
from flyweight.files import replacing
from flyweight.origin import Origin, note_origin, origin_of
from flyweight.pruning import PruningPlan, prune_
from flyweight.zoo import SPECS, create, is_library_name, is_own_name
from flyweight.zoo.sources.own import Builder, build_own

FORMAT = 1
_KEY = "flyweight"


@dataclass(frozen=True)
class Checkpoint:
    """Everything a checkpoint says besides its tensors.

    Attributes:
        lineage: Architecture, its arguments, and the plans applied since.
        task: What the model is for, for example "detect".
        labels: Class names in order of their indices.
        preprocessing: How an image becomes the network's input; JSON values.
        metrics: Measured numbers by name.
        notes: Anything else worth keeping: data set, command, flyweight's version; JSON values.
    """

    origin: Origin
    task: str = ""
    labels: tuple[str, ...] = ()
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def plans(self) -> tuple[PruningPlan, ...]:
        """The plans that were applied, in order."""
        return tuple(PruningPlan.from_json(text) for text in self.origin.plans)


def save(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    task: str = "",
    labels: tuple[str, ...] = (),
    preprocessing: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
    notes: Mapping[str, Any] | None = None,
) -> None:
    """Write `model` as one self-describing file, whole or not at all.

    Tensors and architecture are enough for `load`. The commands that use a checkpoint without its
    config (`flyweight export`, `flyweight predict`) need `labels` and `preprocessing`, too.

    Args:
        model: Built by `fw.create` and pruned, if at all, by `fw.prune`: both leave a note of
            where it came from on the module. A network of your own is one, too:
            `fw.create(build, num_classes=3)`.
        path: Where to; by convention it ends in `.safetensors`.
        task: What the model is for.
        labels: Class names in the order of their indices.
        preprocessing: JSON values: `height` and `width` in pixels; where they differ from the
            defaults of `data.preprocess.Preprocessing`, whose `model_dump()` has them all, also
            `mean`, `std` and `interpolation`.
        metrics: Measured numbers.
        notes: Anything else, JSON values; `detect` holds the settings of a `DetectConfig`.

    Raises:
        CheckpointError: The module carries no note of its origin or no weights, or a value is not
            one of JSON's.
        FileError: The file cannot be written.
    """
    origin = origin_of(model)
    if origin is None:
        raise CheckpointError(
            f"A checkpoint must say how to build its model. Received a {type(model).__name__} that "
            f"fw.create did not make, to save as '{path}'. Build it with fw.create(FUNCTION, ...)."
        )
    header = {
        "format": FORMAT,
        "architecture": origin.architecture,
        "arguments": origin.arguments,
        "plans": [json.loads(plan) for plan in origin.plans],
        "task": task,
        "labels": list(labels),
        "preprocessing": dict(preprocessing or {}),
        # JSON has no "not a number"; null stands for it.
        "metrics": {k: v if math.isfinite(v) else None for k, v in (metrics or {}).items()},
        "notes": dict(notes or {}),
    }
    text = _to_json(header)
    tensors = dict(_unique_tensors(model))
    if any(tensor.is_meta for tensor in tensors.values()):
        raise CheckpointError(
            f"A checkpoint must have weights. Received a {type(model).__name__} on the meta "
            f"device, which has none, to save as '{path}'. Load weights into it first."
        )
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as draft:
        try:
            save_file(plain, draft, metadata={_KEY: text})
        except SafetensorError as error:
            raise OSError(None, str(error)) from error


def is_checkpoint(path: str | os.PathLike[str]) -> bool:
    """Return whether `path` is a `.safetensors` file with our header, damaged or not."""
    try:
        with _opened(Path(path)) as file:
            return _KEY in (file.metadata() or {})
    except CheckpointError:
        return False


def load(path: str | os.PathLike[str], *, build: Builder | None = None) -> nn.Module:
    """Return the model of a checkpoint, in evaluation mode, with its weights.

    What the file says is never imported: the network of your own is built by what you give here.

    Args:
        path: The file.
        build: Makes the network where it is your own; the function that `fw.create` was called
            with, or the config names. It gets the arguments that the file has, JSON values.

    Raises:
        CheckpointError: The file is not a checkpoint, is damaged, does not fit its architecture, or
            is of your own network and `build` is missing.
    """
    checkpoint = read(path)
    model = rebuild(checkpoint, build)
    load_weights(model, path)
    return model.eval()


def read(path: str | os.PathLike[str]) -> Checkpoint:
    """Return what a checkpoint says about itself, without its tensors.

    Raises:
        CheckpointError: The file is not a checkpoint or of a format this version does not read.
    """
    header = _header(Path(path))
    try:
        if header["format"] != FORMAT:
            raise CheckpointError(
                f"A checkpoint must have format {FORMAT} here. Received format "
                f"{header['format']!r} in '{path}'. "
                "Read it with the version of flyweight that wrote it."
            )
        plans = tuple(PruningPlan.from_json(json.dumps(plan)).to_json() for plan in header["plans"])
        return Checkpoint(
            origin=Origin(str(header["architecture"]), dict(header["arguments"]), plans),
            task=str(header["task"]),
            labels=tuple(str(label) for label in header["labels"]),
            preprocessing=dict(header["preprocessing"]),
            metrics={
                str(name): math.nan if value is None else float(value)
                for name, value in header["metrics"].items()
            },
            notes=dict(header["notes"]),
        )
    except (AttributeError, KeyError, TypeError, ValueError, PlanError) as error:
        raise _damaged_header(path, error) from error


def rebuild(checkpoint: Checkpoint, build: Builder | None = None) -> nn.Module:
    """Return the pruned architecture of a checkpoint, without its weights.

    A network of the zoo is on the meta device; others are on the CPU, because they may hold
    constants that no file has.

    Args:
        checkpoint: What the file says.
        build: As for `load`.

    Raises:
        CheckpointError: The architecture is unknown, or is your own and `build` is missing, or does
            not fit the plans.
    """
    origin = checkpoint.origin
    try:
        model = _unpruned(origin, build)
        for plan in checkpoint.plans:
            prune_(model, plan)
    except (TypeError, ValueError, IndexError, RuntimeError, ConfigError, PlanError) as error:
        raise CheckpointError(
            f"A checkpoint's plans must fit its architecture '{origin.architecture}'. "
            f"Received: {error} Save the model again."
        ) from error
    note_origin(model, origin)
    return model


def _unpruned(origin: Origin, build: Builder | None) -> nn.Module:
    name = origin.architecture
    if is_own_name(name):
        if build is not None:
            return build_own(build, name, origin.arguments)
        raise CheckpointError(
            "A checkpoint of your own network must be opened with what builds it: nothing that a "
            f"file names is imported. Received one of '{name}'. Give -c CONFIG with "
            f"'model: {name}', or call fw.load(path, build=FUNCTION)."
        )
    if is_library_name(name):
        try:
            return create(name, **origin.arguments)
        except ConfigError as error:
            raise CheckpointError(
                f"A checkpoint's network must be one that can be built here. Received: {error}"
            ) from error
    if name not in SPECS:
        raise CheckpointError(
            f"A checkpoint's architecture must be in the zoo. Received '{name}'. "
            f"{nearest(name, SPECS)} Read it with the version that wrote it."
        )
    with torch.device("meta"):
        return create(name, **origin.arguments)


def load_weights(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Put a checkpoint's tensors into `model`, every one or none.

    Raises:
        CheckpointError: Names or shapes differ; the first difference is named.
    """
    wanted = dict(_unique_tensors(model))
    with _opened(Path(path)) as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - not a mapping
        _require_fit(wanted, shapes, path)
        state = {name: file.get_tensor(name) for name in shapes}
    model.load_state_dict(state, strict=False, assign=any(t.is_meta for t in wanted.values()))


def _require_fit(
    wanted: Mapping[str, Tensor], found: Mapping[str, tuple[int, ...]], path: object
) -> None:
    missing = sorted(set(wanted) - set(found))
    extra = sorted(set(found) - set(wanted))
    shapes = [name for name in wanted if name in found and tuple(wanted[name].shape) != found[name]]
    if not (missing or extra or shapes):
        return
    if shapes:
        name = shapes[0]
        first = f"'{name}' has shape {found[name]} where {tuple(wanted[name].shape)} is needed"
    else:
        first = f"'{missing[0]}' is missing" if missing else f"'{extra[0]}' is unknown to the model"
    count = len(missing) + len(extra) + len(shapes)
    raise CheckpointError(
        f"A checkpoint must fit its model tensor by tensor. Received '{path}' with {count} "
        f"difference{'s' if count > 1 else ''}, the first: {first}. "
        "Use the checkpoint of this very architecture."
    )


def _unique_tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    # Tied tensors are stored once, under their first name; loading ties them again.
    seen: set[int] = set()
    unique = []
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            unique.append((name, tensor))
    return unique


def _header(path: Path) -> dict[str, Any]:
    with _opened(path) as file:
        text = (file.metadata() or {}).get(_KEY)
    if text is None:
        raise CheckpointError(
            f"A checkpoint must carry flyweight's header. Received '{path}', a .safetensors file "
            "without one. Give plain weights as pretrain_weights instead."
        )
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged_header(path, error) from error
    if not isinstance(header, dict):
        raise _damaged_header(path, TypeError("no mapping"))
    return header


def _damaged_header(path: object, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"A checkpoint's header must be what flyweight wrote. Received one in '{path}' that "
        f"fails with {type(error).__name__}: {error}. Save the model again."
    )


def _to_json(header: Mapping[str, Any]) -> str:
    try:
        return json.dumps(header, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"What a checkpoint says of itself must be JSON values. Received: {error}. "
            "Give numbers, texts, lists and mappings."
        ) from error


def _opened(path: Path) -> Any:
    if not path.is_file():
        raise CheckpointError(
            f"A checkpoint must exist. Received '{path}', which is no file. Check the path."
        )
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"A checkpoint must be a whole .safetensors file. Received '{path}', "
            f"{path.stat().st_size} bytes: {str(error).splitlines()[0]}. "
            "Copy it again; pickles (.pth, .pt, .pdparams) are not read."
        ) from error
