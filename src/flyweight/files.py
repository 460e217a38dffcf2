"""Writing files whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flyweight.errors import FileError


@contextmanager
def replacing(path: str | os.PathLike[str], *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its place when the block ends well.

    A block that raises leaves neither a new nor a changed file behind, so what carries the final
    name is always whole.

    Args:
        path: The final name.
        durable: Wait until the disk has the content, so that it outlives a loss of power. One file
            among thousands that can be made again need not.

    Raises:
        FileError: The folder cannot be made, or the disk is full or read-only.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "plan.json"
        >>> with replacing(target) as draft:
        ...     _ = draft.write_text("{}")
        >>> target.read_text()
        '{}'
    """
    target = Path(path)
    draft: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # The suffix stays: some writers choose their format by it.
        handle, name = tempfile.mkstemp(
            prefix=f".{target.stem}.", suffix=target.suffix, dir=target.parent
        )
        os.close(handle)
        draft = Path(name)
        yield draft
        if durable:
            _flush_to_disk(draft)
        draft.chmod(0o666 & ~_umask())
        draft.replace(target)
    except OSError as error:
        raise FileError(
            f"'{target}' must be writable. Received: {error.strerror or error}. "
            "Free space there or choose another path; nothing was left half-written."
        ) from error
    finally:
        if draft is not None:
            draft.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str, *, durable: bool = True) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all; `durable` as in `replacing`."""
    with replacing(path, durable=durable) as draft:
        draft.write_text(text, encoding="utf-8")


def _flush_to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _umask() -> int:
    # The only way to read the umask is to set it.
    mask = os.umask(0)
    os.umask(mask)
    return mask
