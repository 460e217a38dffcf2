"""Document of tensors and plain values in one `.safetensors` file.

Values are `None`, booleans, numbers, texts, lists, tuples and mappings, nested as they like, with
tensors among them. The tensors are stored under their path in the document; all other values are
JSON in the file's metadata, where a mapping of one of these keys stands for what JSON lacks:

    {"tensor": NAME}  {"dict": [[KEY, VALUE], ...]}  {"tuple": [...]}  {"float": "nan"}

Reading checks types and sizes and executes nothing.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from flyweight.files import replacing
from flyweight.untrusted.failures import refusing
from flyweight.untrusted.file_bytes import require_file
from flyweight.untrusted.json_values import parse_json

_LARGEST_TEXT = 64 * 2**20


class DamagedDocumentError(Exception):
    """A file that is not a complete document of the expected kind; the message has the reason."""


def write_document(path: Path, kind: str, document: Mapping[str, Any]) -> None:
    """Write a document, completely or not at all.

    Args:
        path: The file.
        kind: Key of the metadata that the JSON is stored under; distinguishes kinds of documents.
        document: Tensors and plain values; other values are a TypeError.

    Raises:
        FileError: The disk is full or read-only.
    """
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_encoded(dict(document), "", tensors), allow_nan=False)
    # In memory first: the library's own writer reports a full disk without the system's reason.
    content = save(_apart(tensors), metadata={kind: text})
    with replacing(path) as draft:
        draft.write_bytes(content)


def read_document(path: Path, kind: str) -> dict[str, Any]:
    """Return a document that `write_document` wrote, with its tensors on the CPU.

    Raises:
        OSError: There is no such file, or it cannot be read.
        DamagedDocumentError: It is not a complete document of this kind.
    """
    require_file(path)  # The library's own error for a file that cannot be opened has no reason.
    must, remedy = "A document must be complete.", "Write it again."
    with refusing(DamagedDocumentError, must, f"'{path}'", remedy):
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(kind)
            if text is None:
                raise ValueError(f"it has no metadata '{kind}'")
            if len(text) > _LARGEST_TEXT:
                raise ValueError(f"its JSON has {len(text):,} characters")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        document = _decoded(parse_json(text), tensors)
        if not isinstance(document, dict):
            raise TypeError("it holds no mapping")
        return document


def _encoded(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        while path in tensors:  # Keys that hold a slash can give two tensors one path.
            path += "'"
        tensors[path] = value
        return {"tensor": path}
    if isinstance(value, Mapping):
        below = f"{path}/" if path else ""
        return {"dict": [[k, _encoded(v, f"{below}{k}", tensors)] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        items = [_encoded(item, f"{path}/{place}", tensors) for place, item in enumerate(value)]
        return {"tuple": items} if isinstance(value, tuple) else items
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(
        f"a document holds tensors and plain values, not {type(value).__name__}: {path}"
    )


def _decoded(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_decoded(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    ((tag, inner),) = value.items()
    if tag == "tensor":
        return tensors[inner]
    if tag == "dict":
        return {_key(key): _decoded(item, tensors) for key, item in inner}
    if tag == "tuple":
        return tuple(_decoded(item, tensors) for item in inner)
    if tag == "float":
        return float(inner)
    raise ValueError(f"an unknown tag '{tag}'")


def _key(key: Any) -> str | int:
    if isinstance(key, (str, int)):
        return key
    raise TypeError(f"a key that is no text or whole number: {key!r}")


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors on the CPU, contiguous, and none sharing its memory with another."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        place = plain.untyped_storage().data_ptr()
        found[name] = plain.clone() if place in seen else plain
        seen.add(place)
    return found
