"""Checkpoint: one file with architecture, transforms, weights, preprocessing, labels and metrics.

The file is `.safetensors`: a JSON header and raw tensors. Loading builds the architecture on the
meta device, applies the transforms in order, and assigns each tensor by its name; nothing is
unpickled. docs/design/0004-checkpoint-format.md describes the header.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypedDict, Unpack

import torch
from safetensors import safe_open
from safetensors.torch import save as serialized
from torch import Tensor, nn

from flyweight.errors import CheckpointError, ConfigError, nearest
from flyweight.files import replacing
from flyweight.graph.entry import plain_module
from flyweight.origin import PRUNE_VERSION, Origin, Parent, Transform, note_origin, origin_of
from flyweight.pruning.plans import PruningPlan
from flyweight.tensor_fit import affordable, require_fit, unique_tensors
from flyweight.transform_kinds import apply_transform, require_known
from flyweight.untrusted.failures import refusing
from flyweight.untrusted.file_bytes import require_file
from flyweight.untrusted.json_values import parse_json
from flyweight.zoo import SPECS, create, is_library_name, is_own_name
from flyweight.zoo.sources.own import Builder, build_own

FORMAT = 2
_KEY = "flyweight"


@dataclass(frozen=True)
class MetricRecord:
    """A measured number and where it comes from.

    Attributes:
        value: The number; nan where there was nothing to measure.
        data: Name or digest of the data set, where it is known.
        date: Day of the measurement as ISO 8601 (`2026-11-30`), where it is known.
    """

    value: float
    data: str | None = None
    date: str | None = None


@dataclass(frozen=True)
class Checkpoint:
    """Everything a checkpoint holds besides its tensors.

    Attributes:
        origin: Architecture, its arguments, the transforms applied since, and the parents.
        task: Name of the task: "detect", "classify" or "segment".
        labels: Class names in the order of their indices.
        preprocessing: How an image becomes the network's input; JSON values.
        metric_records: Measured numbers by name.
        notes: Anything else worth keeping: data set, command, flyweight's version; JSON values.
    """

    origin: Origin
    task: str = ""
    labels: tuple[str, ...] = ()
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    metric_records: Mapping[str, MetricRecord] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def metrics(self) -> dict[str, float]:
        """The measured numbers by name."""
        return {name: record.value for name, record in self.metric_records.items()}

    @property
    def transforms(self) -> tuple[Transform, ...]:
        """What was done to the network after it was built, in order."""
        return self.origin.transforms

    @property
    def parents(self) -> tuple[Parent, ...]:
        """The networks that this one was made from, as far as they were noted."""
        return self.origin.parents

    @property
    def plans(self) -> tuple[PruningPlan, ...]:
        """The pruning plans that were applied, in order."""
        return tuple(PruningPlan.from_json(text) for text in self.origin.plans)

    @property
    def lineage(self) -> Origin:
        """`origin` under its name in version 0.1.0."""
        return self.origin


class Description(TypedDict, total=False):
    """What `save` can write besides the tensors.

    Attributes:
        task: Name of the task: "detect", "classify" or "segment".
        labels: Class names in the order of their indices.
        preprocessing: JSON values: `height` and `width` in pixels; where they differ from the
            defaults of `config.preprocessing.Preprocessing`, whose `model_dump()` has all keys,
            also `mean`, `std`, `interpolation` and so on.
        metrics: Measured numbers by name; a `MetricRecord` also has the data and the date.
        notes: Anything else, JSON values; `detect` holds the settings of a `DetectConfig`.
        parents: Networks that this one was made from, besides those noted on the module.
    """

    task: str
    labels: Sequence[str]
    preprocessing: Mapping[str, Any] | None
    metrics: Mapping[str, float | MetricRecord] | None
    notes: Mapping[str, Any] | None
    parents: Sequence[Parent]


def save(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    half: bool = False,
    **description: Unpack[Description],
) -> None:
    """Write `model` and its description into one file, completely or not at all.

    Tensors and architecture are enough for `load`. The commands that use a checkpoint without its
    config (`flyweight export`, `flyweight predict`) need `labels` and `preprocessing`, too.

    Args:
        model: Built by `fw.create` and changed, if at all, by `fw.prune` and `fw.repair`: they
            leave a note of the origin on the module. `fw.create(build, num_classes=3)` builds a
            network of your own.
        path: The file; by convention it ends in `.safetensors`.
        half: Store floating-point weights in 16 bits, for a file of half the size. `load` makes
            float32 of them; the rounding stays.
        **description: See `Description`.

    Raises:
        CheckpointError: The module carries no note of its origin or no weights, a value is not
            JSON, or a weight is too large for 16 bits.
        FileError: The file cannot be written.
    """
    model = plain_module(model)
    origin = origin_of(model)
    if origin is None:
        raise CheckpointError(
            f"A checkpoint must say how to build its model. Received a {type(model).__name__} that "
            f"fw.create did not make, to save as '{path}'. Build it with fw.create(FUNCTION, ...)."
        )
    text = _header_text(origin, description)
    plain = _plain_tensors(model, path)
    if half:
        plain = {name: _in_16_bits(name, tensor) for name, tensor in plain.items()}
    try:
        # In memory first: the library's own writer makes a temporary file of its own, which stays
        # when the process is killed, and reports a full disk without the system's reason.
        content = serialized(plain, metadata={_KEY: text})
    except KeyError as error:
        raise CheckpointError(
            "A checkpoint must have tensors of types that .safetensors knows. Received "
            f"{error.args[0]}. Convert these tensors, or register them as not persistent."
        ) from error
    with replacing(path) as draft:
        draft.write_bytes(content)


def _plain_tensors(model: nn.Module, path: object) -> dict[str, Tensor]:
    """Return what `model` stores, each tensor in memory of its own."""
    plain, memory = {}, set()
    for name, tensor in unique_tensors(model):
        if not isinstance(tensor, Tensor) or tensor.layout is not torch.strided:
            kind = tensor.layout if isinstance(tensor, Tensor) else type(tensor).__name__
            raise CheckpointError(
                "A checkpoint must hold dense tensors alone. Received a state with "
                f"'{name}' ({kind}), to save as '{path}'. Leave it out of the module's state."
            )
        if tensor.is_meta:
            raise CheckpointError(
                f"A checkpoint must have weights. Received a {type(model).__name__} on the meta "
                f"device, which has none, to save as '{path}'. Load weights into it first."
            )
        found = tensor.detach().cpu().contiguous()
        place = found.untyped_storage().data_ptr()
        plain[name] = found.clone() if place in memory else found
        memory.add(place)
    return plain


def _header_text(origin: Origin, description: Description) -> str:
    header = {
        "architecture": origin.architecture,
        "arguments": origin.arguments,
        "task": description.get("task", ""),
        "labels": list(description.get("labels", ())),
        "preprocessing": dict(description.get("preprocessing") or {}),
        "notes": dict(description.get("notes") or {}),
        **_by_format(origin, description),
    }
    unknown = sorted(set(description) - set(Description.__annotations__))
    if unknown:
        raise TypeError(f"save() got an unexpected keyword argument '{unknown[0]}'")
    try:
        return json.dumps(header, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"The description of a checkpoint must be JSON values. Received: {error}. "
            "Give numbers, texts, lists and mappings."
        ) from error


def _by_format(origin: Origin, description: Description) -> dict[str, Any]:
    """Return the entries that differ between formats: the older format where it can say all."""
    given = (description.get("metrics") or {}).items()
    metrics = {name: _metric_json(value) for name, value in given}
    parents = dict.fromkeys((*origin.parents, *description.get("parents", ())))
    plain = all(one["data"] is None and one["date"] is None for one in metrics.values())
    cuts = [one for one in origin.transforms if (one.kind, one.version) == ("prune", 1)]
    if plain and not parents and len(cuts) == len(origin.transforms):
        values = {name: one["value"] for name, one in metrics.items()}
        return {"format": 1, "plans": [one.data for one in cuts], "metrics": values}
    transforms = [
        {"kind": one.kind, "version": one.version, "data": one.data} for one in origin.transforms
    ]
    listed = [asdict(parent) for parent in parents]
    return {"format": FORMAT, "transforms": transforms, "metrics": metrics, "parents": listed}


def _metric_json(value: float | MetricRecord) -> dict[str, Any]:
    record = value if isinstance(value, MetricRecord) else MetricRecord(value)
    # JSON has no "not a number"; null is used instead.
    return {**asdict(record), "value": record.value if math.isfinite(record.value) else None}


def _in_16_bits(name: str, tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    short = tensor.to(torch.float16)
    if not torch.equal(short.isfinite(), tensor.isfinite()):
        raise CheckpointError(
            "A weight must be within +-65504 to be stored in 16 bits. Received a larger one in "
            f"'{name}'. Save with half=False."
        )
    return short


def is_checkpoint(path: str | os.PathLike[str]) -> bool:
    """Return whether `path` is a `.safetensors` file with our header, damaged or not."""
    try:
        with _opened(Path(path)) as file:
            return _KEY in (file.metadata() or {})
    except CheckpointError:
        return False


def load(path: str | os.PathLike[str], *, build: Builder | None = None) -> nn.Module:
    """Return the model of a checkpoint, in evaluation mode, with its weights.

    No name in the file is imported: a network of your own is built by the function given here.

    Args:
        path: The file.
        build: Makes the network where it is your own; the function that `fw.create` was called
            with, or the config names. It gets the arguments that the file has, JSON values.

    Raises:
        CheckpointError: The file is not a checkpoint, is damaged, does not fit its architecture, or
            is of your own network and `build` is missing.
    """
    checkpoint = read(path)
    context: AbstractContextManager[Any] = nullcontext()
    if is_library_name(checkpoint.origin.architecture):
        with _opened(Path(path)) as file, _fitting(checkpoint.origin):
            context = affordable(checkpoint.origin, _shapes_in(file), path)
    with context:
        model = rebuild(checkpoint, build)
    load_weights(model, path)
    return model.eval()


def read(path: str | os.PathLike[str]) -> Checkpoint:
    """Return the header of a checkpoint, without its tensors.

    Raises:
        CheckpointError: The file is not a checkpoint, or its format or one of its transforms is not
            known to this version.
    """
    header = _header(Path(path))
    with _reading_header(path):
        if header["format"] not in (1, FORMAT):
            raise CheckpointError(
                f"A checkpoint must have format 1 or {FORMAT} here. Received format "
                f"{header['format']!r} in '{path}'. "
                "Read it with the version of flyweight that wrote it."
            )
        return Checkpoint(
            origin=Origin(
                architecture=str(header["architecture"]),
                arguments=dict(header["arguments"]),
                transforms=require_known(_transforms_of(header), Path(path)),
                parents=tuple(
                    Parent(str(one["role"]), str(one["digest"]))
                    for one in header.get("parents", ())
                ),
            ),
            task=str(header["task"]),
            labels=tuple(str(label) for label in header["labels"]),
            preprocessing=dict(header["preprocessing"]),
            metric_records=_metrics_of(header),
            notes=dict(header["notes"]),
        )


def _transforms_of(header: Mapping[str, Any]) -> tuple[Transform, ...]:
    if header["format"] == 1:  # Of flyweight 0.1.0, which knew only pruning.
        return tuple(Transform.of("prune", PRUNE_VERSION, plan) for plan in header["plans"])
    return tuple(_transform_of(one) for one in header["transforms"])


def _transform_of(entry: Mapping[str, Any]) -> Transform:
    kind, version = entry["kind"], entry["version"]
    if not isinstance(kind, str) or type(version) is not int:
        raise TypeError(f"a transform of kind {kind!r} and version {version!r}")
    return Transform.of(kind, version, entry["data"])


def _metrics_of(header: Mapping[str, Any]) -> dict[str, MetricRecord]:
    if header["format"] == 1:
        return {str(name): MetricRecord(_number(v)) for name, v in header["metrics"].items()}
    return {
        str(name): MetricRecord(_number(one["value"]), _text(one["data"]), _text(one["date"]))
        for name, one in header["metrics"].items()
    }


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def rebuild(checkpoint: Checkpoint, build: Builder | None = None) -> nn.Module:
    """Return the architecture of a checkpoint after its transforms, without its weights.

    A network of the zoo is on the meta device; others are on the CPU, because they may hold
    constants that no file has.

    Args:
        checkpoint: The header of the file.
        build: As for `load`.

    Raises:
        CheckpointError: The architecture is unknown, or is your own and `build` is missing, or does
            not fit the transforms.
    """
    origin = checkpoint.origin
    with _fitting(origin):
        model = _before_transforms(origin, build)
        for transform in origin.transforms:
            apply_transform(model, transform)
    note_origin(model, origin)
    return model


def _fitting(origin: Origin) -> AbstractContextManager[None]:
    must = f"A checkpoint's transforms must fit its architecture '{origin.architecture:.120}'."
    return refusing(CheckpointError, must, "others", "Save the model again.")


def _before_transforms(origin: Origin, build: Builder | None) -> nn.Module:
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
    """Put a checkpoint's tensors into `model`, all of them or none.

    Floating-point tensors take the model's own type: a file of 16-bit weights gives float32.

    Raises:
        CheckpointError: Names, shapes or types differ; the first difference is named.
    """
    wanted = dict(unique_tensors(model))
    with _opened(Path(path)) as file:
        shapes = _shapes_in(file)
        require_fit(model, shapes, path)
        # Copied: a tensor in the mapped file starts at any byte, and for memory that is not aligned
        # kernels choose other code, which rounds differently.
        state = {
            name: _as_type_of(wanted[name], file.get_tensor(name).clone(), name) for name in shapes
        }
    model.load_state_dict(state, strict=False, assign=any(t.is_meta for t in wanted.values()))


def _shapes_in(file: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - not a mapping


def _as_type_of(wanted: Tensor, found: Tensor, name: str) -> Tensor:
    # Assigning keeps the type of what is assigned, so it is converted first.
    if wanted.is_floating_point() and found.is_floating_point():
        return found.to(wanted.dtype)
    if wanted.dtype != found.dtype:
        raise CheckpointError(
            f"A checkpoint must fit its model tensor by tensor. Received '{name}' as "
            f"{found.dtype} where {wanted.dtype} is needed. "
            "Use the checkpoint of this very architecture."
        )
    return found


def _header(path: Path) -> dict[str, Any]:
    with _opened(path) as file:
        text = (file.metadata() or {}).get(_KEY)
    if text is None:
        raise CheckpointError(
            f"A checkpoint must carry flyweight's header. Received '{path}', a .safetensors file "
            "without one. Give plain weights as pretrain_weights instead."
        )
    with _reading_header(path):
        header = parse_json(text)
        if not isinstance(header, dict):
            raise TypeError("it is no mapping")
        return header


def _reading_header(path: object) -> AbstractContextManager[None]:
    must = "A checkpoint's header must be what flyweight wrote."
    return refusing(CheckpointError, must, f"one in '{path}'", "Save the model again.")


def _opened(path: Path) -> Any:
    if not path.is_file():
        raise CheckpointError(
            f"A checkpoint must exist. Received '{path}', which is no file. Check the path."
        )
    must = "A checkpoint must be a whole .safetensors file."
    remedy = "Copy it again; pickles (.pth, .pt, .pdparams) are not read."
    with refusing(CheckpointError, must, f"'{path}', {path.stat().st_size} bytes", remedy):
        require_file(path)
        return safe_open(path, framework="pt")
