"""Filling a network from a file of weights, with an account of every tensor.

Read are `.safetensors` files of our own tensor names, of timm's and torchvision's for networks and
backbones of theirs, and of theirs for our MobileNetV1 and ResNets. Half precision becomes the
network's own.

A note on TensorFlow's MobileNetV1 weights, which timm's are: they were trained with TensorFlow's
"same" padding (at stride 2 only the right and the lower edge are padded) and ReLU6; this network
pads symmetrically and uses ReLU, as the original detector does. On ImageNet the paddings differ by
ten points of top-1 (88.5 and 78.4 %), which fine-tuning returns and re-estimating batch norm alone
does not.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from flyweight.errors import CheckpointError, FileError
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
"""What may stand before the names in a file, and what stands there in a network of ours:
`network.` is `libraries.MainOutput`, `features.` torchvision's classifiers."""

_TIMM_STAGES = (1, 2, 2, 6, 2)
"""Depthwise-separable pairs in each of timm's `blocks.<stage>`."""

_TIMM_LAYERS = {
    "conv_dw": "dw.conv",
    "bn1": "dw.bn",
    "conv_pw": "sep.conv",
    "bn2": "sep.bn",
}


@dataclass(frozen=True)
class MismatchedTensor:
    """A tensor of the file that has another shape in the network.

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
    """What became of every tensor of the network and of the file.

    Attributes:
        loaded: Names in the network that were filled.
        missing: Names in the network that the file does not have; they keep their values.
        mismatched: Tensors left alone because the shapes differ.
        unused: Names in the file that have no place in the network.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    mismatched: tuple[MismatchedTensor, ...]
    unused: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every tensor asked for was filled."""
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
    """Fill `model` in place from a `.safetensors` file.

    Args:
        model: A network with a `backbone`, a backbone, or any other network.
        path: The file.
        what: "backbone" fills (and accounts for) the backbone only, where the network has one;
            "all" the whole network.

    Returns:
        What was loaded and what was not.

    Raises:
        FileError: There is no such file.
        CheckpointError: It is damaged or no `.safetensors` file, or none of its tensors fits.
    """
    return fill(model, read_tensors(path), str(path), what=what)


def fill(
    model: nn.Module, tensors: Mapping[str, Tensor], source: str, *, what: What = "all"
) -> LoadedWeights:
    """Fill `model` in place from named tensors.

    The naming is tried under which most of them fit: as it is, under or without the prefixes that
    networks give their parts, and timm's of MobileNetV1 as ours. Batch norm's counters of batches
    are left alone and out of the account: nothing reads them.

    Args:
        model: As for `load_weights`.
        tensors: What to fill it with.
        source: Where they come from, for the message.
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
                target.copy_(found)
                loaded.append(name)
    unused = sorted(name for name in named if name not in wanted and _COUNTER not in name)
    account = LoadedWeights(tuple(loaded), tuple(missing), tuple(mismatched), tuple(unused))
    if not loaded:
        raise CheckpointError(
            f"'{source}' must hold weights of this network ({what}). Received: {account}. "
            "Choose a file of the same architecture and width."
        )
    return account


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Return all tensors of a `.safetensors` file; nothing in it is executed.

    Raises:
        FileError: There is no such file.
        CheckpointError: It is damaged or another kind of file.
    """
    file = Path(path)
    if not file.is_file():
        raise FileError(
            f"A file of weights must exist. Received: '{file}'. Check the path; "
            "weights are .safetensors files."
        )
    try:
        return load_file(file)
    except SafetensorError as error:
        raise CheckpointError(
            f"'{file}' must be a whole .safetensors file. Received: {_kind_of(file)} "
            f"({' '.join(str(error).split())}). Copy it again, or convert it first."
        ) from error
    except OSError as error:
        raise FileError(
            f"'{file}' must be readable. Received: {error.strerror or error}. "
            "Check its permissions."
        ) from error


def _kind_of(file: Path) -> str:
    """Guess from the first bytes what a file that is no safetensors is."""
    with file.open("rb") as stream:
        head = stream.read(9)
    if head[:2] == b"PK" or head[:1] == b"\x80":
        return "a pickle, which is never loaded because it can execute code"
    if len(head) == 9 and head[8:] == b"{":
        return f"{file.stat().st_size} bytes of a damaged or truncated one"
    return "an empty file" if not head else "another kind of file"


def _wanted(model: nn.Module, what: What) -> dict[str, Tensor]:
    state = {name: value for name, value in model.state_dict().items() if _COUNTER not in name}
    if what == "backbone" and hasattr(model, "backbone"):
        state = {name: value for name, value in state.items() if name.startswith(_BACKBONE)}
    if any(value.is_meta for value in state.values()):
        raise CheckpointError(
            "Weights can only be loaded into a network that has memory. Received: one on the meta "
            "device. Create it outside torch.device('meta')."
        )
    return state


def _namings(tensors: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Yield the tensors under every naming that this network's may follow, likeliest first."""
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
    """Return how many tensors fit by name and shape, and how many by name alone."""
    known = [name for name in named if name in wanted]
    return sum(wanted[name].shape == named[name].shape for name in known), len(known)


def _from_timm(name: str) -> str:
    """Return our name of one of timm's, the name itself where there is none."""
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
