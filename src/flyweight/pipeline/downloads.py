"""Weights that are named by a URL: downloaded once, into the user's cache folder."""

import hashlib
import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from flyweight.errors import CheckpointError
from flyweight.file_digests import cache_folder, digest_file
from flyweight.files import replacing
from flyweight.progress import Progress, progress_of

_SECONDS = 30
_CHUNK = 2**20
_LARGEST = 8 * 2**30
_PADDLE = (".pdparams", ".tar", ".tar.gz", ".tgz")
_SHA256 = re.compile(r"#sha256=([0-9a-fA-F]{64})$")


def is_url(name: str) -> bool:
    """Say whether a name of weights is a URL.

    Example:
        >>> is_url("https://example.org/a.safetensors"), is_url("output/a")
        (True, False)
    """
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", name) is not None


def require_readable_kind(name: str) -> None:
    """Refuse weights of the original tools, whose files are not read yet.

    Raises:
        CheckpointError: The name ends as their files do.
    """
    if name.partition("#")[0].lower().endswith(_PADDLE):
        raise CheckpointError(
            f"A file of weights must be a .safetensors file. Received '{name}', weights of "
            "PaddlePaddle. A later part of flyweight, import-paddle, converts them; until then "
            "train the network, or give weights that were converted elsewhere."
        )


def downloaded(url: str, *, progress: Progress | bool = True) -> Path:
    """Return the file of a URL, downloaded where it is not in the cache folder yet.

    Args:
        url: `https://.../NAME.safetensors`; `#sha256=DIGEST` at its end is compared.
        progress: Receives the number of bytes, and the digest of a new file.

    Raises:
        CheckpointError: The URL is of another kind or cannot be downloaded, or the digest differs.
        FileError: The cache folder cannot be written.
    """
    require_readable_kind(url)
    plain, wanted = _SHA256.sub("", url), _SHA256.search(url)
    if not plain.startswith(("https://", "http://")) or not plain.endswith(".safetensors"):
        raise CheckpointError(
            "Weights in the web must be named https://.../NAME.safetensors. Received "
            f"'{url}'. Download the file, and give its path."
        )
    key = hashlib.sha256(plain.encode()).hexdigest()[:16]
    target = cache_folder().with_name("weights") / f"{key}-{plain.rpartition('/')[2][-80:]}"
    if not target.is_file():
        _fetch(plain, target, progress_of(progress))
    digest = digest_file(target)
    if wanted is not None and wanted[1].lower() != digest:
        raise CheckpointError(
            f"Downloaded weights must have the digest that was given. Received '{url}', whose "
            f"sha256 is {digest}. Correct the digest, or remove '{target}' to download again."
        )
    return target


def _fetch(url: str, target: Path, progress: Progress) -> None:
    reports, digest, size = progress.start("download"), hashlib.sha256(), 0
    try:
        with urllib.request.urlopen(url, timeout=_SECONDS) as answer, replacing(target) as draft:
            reports.finish()
            reports = progress.start("download", _size_of(answer))
            with draft.open("wb") as file:
                for chunk in _chunks(answer):
                    file.write(chunk)
                    digest.update(chunk)
                    size += len(chunk)
                    _require_size(url, size)
                    reports.update(size)
    except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException,
            ValueError) as error:  # fmt: skip
        reason = " ".join(str(getattr(error, "reason", None) or error).split())[:200]
        raise CheckpointError(
            f"Weights must be downloaded from '{url}'. Received: {reason or type(error).__name__}. "
            "Check that this machine is online, or give the path of a file that was downloaded "
            "elsewhere."
        ) from error
    finally:
        reports.finish()
    progress.note(f"downloaded {url}: {size / 2**20:.1f} MiB, sha256 {digest.hexdigest()}")


def _chunks(answer: IO[bytes]) -> Iterator[bytes]:
    while chunk := answer.read(_CHUNK):
        yield chunk


def _size_of(answer: http.client.HTTPResponse) -> int | None:
    text = answer.headers.get("Content-Length") or ""
    return int(text) if text.isdecimal() and len(text) < 20 else None


def _require_size(url: str, size: int) -> None:
    if size > _LARGEST:
        raise CheckpointError(
            f"Weights must be at most {_LARGEST // 2**30} GiB. Received more from '{url}'. "
            "Check the URL."
        )
