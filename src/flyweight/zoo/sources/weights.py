"""Loading of weights from a file into a network, with a report on every tensor.

`.safetensors` files are read with the tensor names of flyweight, with the names of timm and
torchvision for their networks and backbones, and with their names for MobileNetV1 and the ResNets
of flyweight. Tensors of half precision are converted to the precision of the network.

Note on the MobileNetV1 weights of timm, which are those of TensorFlow: they were trained with the
"same" padding of TensorFlow (at stride 2, only the right and the lower edge are padded) and with
ReLU6. The network here pads symmetrically and uses ReLU, as the original detector does. On ImageNet
the two paddings differ by ten points of top-1 (88.5 and 78.4 %). Fine-tuning recovers the
difference; re-estimated batch norm alone does not.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from flyweight.errors import CheckpointError, FileError
from flyweight.untrusted.failures import refusing
from flyweight.untrusted.file_bytes import open_file, require_file
from flyweight.zoo.backbones.mobilenet_v1 import PAIRS
from flyweight.zoo.backbones.resnet import library_names

_BACKBONE = "backbone."
_COUNTER = "num_batches_tracked"
What = Literal["backbone", "all"]

_PREFIXES = (
    ("", ""),
    ("", _BACKBONE),
    (_BACKBONE, ""),
    ("", "network."),
    ("", "network.backbone."),
    ("features.", "network.backbone."),
)
"""Pairs (prefix of the names in a file, prefix of the names in the network). `network.` belongs to
`libraries.MainOutput`, `features.` to the classifiers of torchvision."""

_TIMM_STAGES = (1, 2, 2, 6, 2)
"""Number of depthwise-separable pairs in each `blocks.<stage>` of timm."""

_TIMM_LAYERS = {
    "conv_dw": "dw.conv",
    "bn1": "dw.bn",
    "conv_pw": "sep.conv",
    "bn2": "sep.bn",
}


@dataclass(frozen=True)
class MismatchedTensor:
    """A tensor whose shape in the file differs from its shape in the network.

    Attributes:
        name: Name in the network.
        wanted: Shape in the network.
        found: Shape in the file.
    """

    name: str
    wanted: tuple[int, ...]
    found: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} (wanted {self.wanted}, found {self.found})"


@dataclass(frozen=True)
class LoadedWeights:
    """Report on every tensor of the network and of the file.

    Attributes:
        loaded: Names in the network that were loaded.
        missing: Names in the network that the file does not have. They keep their values.
        mismatched: Tensors that were not loaded because the shapes differ.
        unused: Names in the file that the network does not have.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    mismatched: tuple[MismatchedTensor, ...]
    unused: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every requested tensor was loaded."""
        return not self.missing and not self.mismatched

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} tensors loaded"]
        for word in ("missing", "mismatched", "unused"):
            entries = getattr(self, word)
            if entries:
                more = ", ..." if len(entries) > 3 else ""
                parts.append(f"{len(entries)} {word}: {', '.join(map(str, entries[:3]))}{more}")
        return "; ".join(parts)


def load_weights(model: nn.Module, path: str | Path, *, what: What = "backbone") -> LoadedWeights:
    """Load a `.safetensors` file into `model`, in place.

    Args:
        model: A network with a `backbone`, a backbone, or any other network.
        path: The file.
        what: "backbone" loads (and reports) only the backbone of a network that has one; "all"
            loads the whole network.

    Returns:
        The report of loaded and other tensors.

    Raises:
        FileError: There is no such file.
        CheckpointError: The file is damaged or no `.safetensors` file, or none of its tensors
            fits.
    """
    return fill(model, read_tensors(path), str(path), what=what)


def fill(
    model: nn.Module, tensors: Mapping[str, Tensor], source: str, *, what: What = "all"
) -> LoadedWeights:
    """Load named tensors into `model`, in place.

    Several namings are tried, and the one with most matches is used: the names unchanged, with or
    without the prefixes of parts of networks, and the names of timm for MobileNetV1 converted. The
    batch counters of batch norm are neither loaded nor reported, because nothing reads them.

    Args:
        model: As for `load_weights`.
        tensors: The tensors by name.
        source: Where the tensors come from, for the error message.
        what: As for `load_weights`.

    Raises:
        CheckpointError: None of the tensors fits.
    """
    wanted = _wanted(model, what)
    named = max(_namings(tensors), key=lambda naming: _fitting(naming, wanted))
    loaded, missing, mismatched = [], [], []
    with torch.no_grad():
        for name, target in wanted.items():
            found = named.get(name)
            if found is None:
                missing.append(name)
            elif found.shape != target.shape:
                shapes = tuple(target.shape), tuple(found.shape)
                mismatched.append(MismatchedTensor(name, *shapes))
            else:
                target.copy_(_of_type(found, target.dtype, name, source))
                loaded.append(name)
    unused = sorted(name for name in named if name not in wanted and _COUNTER not in name)
    account = LoadedWeights(tuple(loaded), tuple(missing), tuple(mismatched), tuple(unused))
    if not loaded:
        raise CheckpointError(
            f"'{source}' must hold weights of this network ({what}). Received: {account}. "
            "Choose a file of the same architecture and width."
        )
    return account


def fillable(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the tensors that weights can fill: all but the counters of batch norm."""
    return tuple(name for name in model.state_dict() if _COUNTER not in name)


def _of_type(found: Tensor, wanted: torch.dtype, name: str, source: str) -> Tensor:
    """Return a tensor in another precision; a type of another kind is refused."""
    if found.dtype == wanted or (found.is_floating_point() and wanted.is_floating_point):
        return found.to(wanted)
    raise CheckpointError(
        f"Weights must be of a type that can be converted without a loss of meaning. Received "
        f"'{name}' as {found.dtype} in '{source}', where {wanted} is needed. "
        "Save floating-point weights."
    )


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Return all tensors of a `.safetensors` file. Nothing in the file is executed.

    Raises:
        FileError: There is no such file.
        CheckpointError: The file is damaged or of another kind.
    """
    file = Path(path)
    if not file.is_file():
        raise FileError(
            f"A file of weights must exist. Received: '{file}'. Check the path; "
            "weights are .safetensors files."
        )
    must, remedy = f"'{file}' must be readable.", "Check its permissions."
    with refusing(FileError, must, "a file", remedy):
        require_file(file)
    must, remedy = f"'{file}' must be a whole .safetensors file.", "Copy it again, or convert it."
    with refusing(CheckpointError, must, _kind_of(file), remedy):
        return load_file(file)


def _kind_of(file: Path) -> str:
    """Return the likely kind of a file that is not safetensors, from its first bytes."""
    with open_file(file) as stream:
        head = stream.read(9)
    if head[:2] == b"PK" or head[:1] == b"\x80":
        return "a pickle, which is never loaded because it can execute code"
    if len(head) == 9 and head[8:] == b"{":
        return f"{file.stat().st_size} bytes of a damaged or truncated file"
    return "an empty file" if not head else "another kind of file"


def _wanted(model: nn.Module, what: What) -> dict[str, Tensor]:
    values = model.state_dict()
    state = {name: values[name] for name in fillable(model)}
    if what == "backbone" and hasattr(model, "backbone"):
        state = {name: value for name, value in state.items() if name.startswith(_BACKBONE)}
    if any(value.is_meta for value in state.values()):
        raise CheckpointError(
            "Weights can only be loaded into a network with memory. Received: a network on the "
            "meta device. Create it outside torch.device('meta')."
        )
    return state


def _namings(tensors: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Yield the tensors under every possible naming of the network, the most likely first."""
    candidates = [dict(tensors)]
    if "conv_stem.weight" in _bare(tensors):
        candidates.append({_from_timm(name): tensor for name, tensor in tensors.items()})
    if "layer1.0.conv1.weight" in tensors:
        ours = library_names(tensors)
        candidates.append({ours.get(name, name): tensor for name, tensor in tensors.items()})
    for named in candidates:
        for before, after in _PREFIXES:
            yield {_moved(name, before, after): tensor for name, tensor in named.items()}


def _moved(name: str, before: str, after: str) -> str:
    return after + name.removeprefix(before) if name.startswith(before) else name


def _bare(tensors: Mapping[str, Tensor]) -> set[str]:
    return {name.removeprefix(_BACKBONE) for name in tensors}


def _fitting(named: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> tuple[int, int]:
    """Return how many tensors match by name and shape, and how many by name alone."""
    known = [name for name in named if name in wanted]
    return sum(wanted[name].shape == named[name].shape for name in known), len(known)


def _from_timm(name: str) -> str:
    """Return the name here for a name of timm, or the name itself if there is none."""
    bare = name.removeprefix(_BACKBONE)
    for layer, ours in (("conv_stem.", "conv1.conv."), ("bn1.", "conv1.bn.")):
        if bare.startswith(layer):
            return _BACKBONE + ours + bare.removeprefix(layer)
    match = re.fullmatch(r"blocks\.(\d+)\.(\d+)\.(conv_dw|bn1|conv_pw|bn2)\.(\w+)", bare)
    if match is None or int(match[1]) >= len(_TIMM_STAGES):
        return name
    position = sum(_TIMM_STAGES[: int(match[1])]) + int(match[2])
    if int(match[2]) >= _TIMM_STAGES[int(match[1])]:
        return name
    return f"{_BACKBONE}{PAIRS[position][0]}.{_TIMM_LAYERS[match[3]]}.{match[4]}"
