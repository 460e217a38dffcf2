"""Workspace protocol: a folder that records what long work is made from, its parts, and its end.

A training, a scan and every stage of a pipeline write into a folder for a long time and can be
interrupted at any moment. All of them follow one protocol:

1. *made from*: a note in the folder names everything that the result depends on, with its value or
   its digest, before the work starts.
2. *parts*: files that an interrupted attempt leaves behind and the next attempt can use.
3. *done*: the note marks the result as complete.

Whoever comes back compares the note with what the result depends on now, and so knows whether the
work is finished, can be resumed, or must be done again, and because of which difference.
This module imports neither torch nor numpy.
"""

import json
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from flyweight.errors import FileError
from flyweight.files import remove_abandoned_drafts, write_text
from flyweight.folder_lock import FolderLock
from flyweight.untrusted.file_bytes import read_text
from flyweight.untrusted.json_values import parse_json

NOTE = "done.json"
LOCK = ".lock"

Say = Callable[[str], None]
State = Literal["new", "changed", "interrupted", "finished"]


@dataclass(frozen=True)
class MadeFrom:
    """Everything that a result depends on.

    Attributes:
        values: JSON values by name: a setting's value, or the digest of a file or a data set.
        defaults: Names whose value is the default. A note that lacks such a name was written by a
            version that did not have the setting yet, so its absence is no difference.
    """

    values: Mapping[str, Any]
    defaults: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        # A note that was read has lists where these values may have tuples.
        object.__setattr__(self, "values", json.loads(json.dumps(dict(self.values))))


@dataclass(frozen=True)
class Difference:
    """One thing that a result depends on and that is no longer what it was.

    Attributes:
        name: What differs.
        was: Its recorded value; None where none was recorded.
        now: Its value now; None where the result no longer depends on it.
    """

    name: str
    was: Any
    now: Any

    def __str__(self) -> str:
        if _is_digest(self.was) or _is_digest(self.now):
            return f"{self.name} changed"
        return f"{self.name} was {_shown(self.was)} and is {_shown(self.now)}"


@dataclass(frozen=True)
class Note:
    """What a folder records about one piece of work.

    Attributes:
        made_from: What the work depends on, by name; None where the note does not say.
        finished: Whether the result is complete.
        seconds: How long it took.
        parts: Files in the folder that were made from the same things.
        old_digest: Version 0.1.0 recorded one digest of everything in place of `made_from`.
    """

    made_from: Mapping[str, Any] | None = None
    finished: bool = False
    seconds: float | None = None
    parts: tuple[str, ...] = ()
    old_digest: str | None = None


@dataclass(frozen=True)
class Standing:
    """How a recorded piece of work compares with what it would be made from now.

    Attributes:
        state: "new": nothing is recorded; "changed": something else was recorded; "interrupted":
            the same work was begun; "finished": it is complete.
        differences: Why it is "changed", as far as the note can say.
    """

    state: State
    differences: tuple[Difference, ...] = ()


def differences(found: Mapping[str, Any], wanted: MadeFrom) -> tuple[Difference, ...]:
    """Return what differs between a note and what a result depends on now, sorted by name.

    Example:
        >>> [str(one) for one in differences({"steps": 3}, MadeFrom({"steps": 4}))]
        ['steps was 3 and is 4']
    """
    names = sorted(found.keys() | wanted.values.keys())
    pairs = [(name, found.get(name), wanted.values.get(name)) for name in names]
    return tuple(
        Difference(name, was, now)
        for name, was, now in pairs
        if was != now and not (name not in found and name in wanted.defaults)
    )


_MOST_BYTES_OF_PART = 2**30


@dataclass(frozen=True)
class Workspace:
    """A folder, and the note of one piece of work in it.

    Attributes:
        folder: Gets what the work makes.
        note_name: File name of the note. Several pieces of work in one folder need several names.
    """

    folder: Path
    note_name: str = NOTE

    @property
    def note_path(self) -> Path:
        """The file of the note."""
        return self.folder / self.note_name

    def read(self) -> Note | None:
        """Return the note, or None where there is none.

        A note that cannot be read counts as empty; it still shows that the folder is a run folder.
        """
        if not self.note_path.is_file():
            return None
        try:
            document = parse_json(read_text(self.note_path))
        except (OSError, ValueError):
            return Note()
        return _note_of(document) if isinstance(document, dict) else Note()

    def standing(self, made_from: MadeFrom) -> Standing:
        """Return how the recorded work compares with what it would be made from now."""
        note = self.read()
        if note is None:
            return Standing("new")
        if note.made_from is None:
            return Standing("changed")
        found = differences(note.made_from, made_from)
        if found:
            return Standing("changed", found)
        return Standing("finished" if note.finished else "interrupted")

    def begin(self, made_from: MadeFrom, *, resume: bool = False) -> None:
        """Record that work starts, and what it is made from.

        Args:
            made_from: What the result depends on.
            resume: Keep the record of the parts that an earlier attempt has left.

        Raises:
            FileError: The folder cannot be written.
        """
        self._write(made_from, resume=resume)

    def finish(self, made_from: MadeFrom, seconds: float) -> None:
        """Record that the result is complete.

        Raises:
            FileError: The folder cannot be written.
        """
        self._write(made_from, resume=True, finished=True, seconds=round(seconds, 1))

    def keep_part(self, name: str) -> None:
        """Record that a file in the folder was made by this attempt, so that the next can use it.

        Raises:
            FileError: The folder cannot be written.
        """
        note = self.read() or Note()
        self._write(MadeFrom(note.made_from or {}), resume=True, parts=(name,))

    def has_part(self, name: str) -> bool:
        """Say whether a file is there and was recorded by `keep_part`."""
        note = self.read()
        return note is not None and name in note.parts and (self.folder / name).is_file()

    @contextmanager
    def recorded(self, made_from: MadeFrom, *, resume: bool = False) -> Iterator[None]:
        """Record that the work in the block starts, and that it is complete when the block ends.

        A block that fails before it has written anything leaves no new note.

        Args:
            made_from: What the result depends on.
            resume: As for `begin`.

        Raises:
            FileError: The folder cannot be written.
        """
        before = _names_in(self.folder)
        self.begin(made_from, resume=resume)
        started = time.monotonic()
        try:
            yield
        except BaseException:
            if _names_in(self.folder) - before == {self.note_name}:
                self.note_path.unlink(missing_ok=True)
                if not before:
                    self.folder.rmdir()
            raise
        self.finish(made_from, time.monotonic() - started)

    def forget(self) -> None:
        """Record that the result must be made again; its files stay until they are replaced."""
        if self.read() is not None:
            self._write(None)

    def read_part(self, name: str) -> Any:
        """Return the JSON value of a part, or None where the part was not written.

        Raises:
            OSError: The file cannot be read.
            ValueError: It holds something else than JSON.
        """
        path = self.folder / name
        return parse_json(read_text(path, _MOST_BYTES_OF_PART)) if path.is_file() else None

    def write_part(self, name: str, value: Any) -> None:
        """Write one part as JSON, whole or not at all.

        Raises:
            FileError: The folder cannot be written.
        """
        write_text(self.folder / name, json.dumps(value))

    def remove(self) -> None:
        """Remove the folder with its parts: what they were for is complete elsewhere.

        The note goes last, so that parts never stand without what they were made from.
        """
        if not self.folder.is_dir():
            return
        for path in self.folder.iterdir():
            if path.name in (self.note_name, LOCK):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs out of the folder until the block ends.

        What a killed run has left half-written in the folder is removed first.

        Raises:
            FileError: Another run works in the folder, or the folder cannot be written.
        """
        with FolderLock(self.folder / LOCK):
            remove_abandoned_drafts(self.folder)
            yield

    def _write(
        self,
        made_from: MadeFrom | None,
        *,
        resume: bool = False,
        parts: tuple[str, ...] = (),
        finished: bool = False,
        seconds: float | None = None,
    ) -> None:
        note = self.read() if resume else None
        kept = () if note is None else note.parts
        document = {
            "made_from": None if made_from is None else dict(made_from.values),
            "finished": finished,
            **({} if seconds is None else {"seconds": seconds}),
            "parts": list(dict.fromkeys((*kept, *parts))),
        }
        write_text(self.note_path, json.dumps(document) + "\n")


@dataclass(frozen=True)
class Work:
    """A piece of work that `perform` does, resumes or skips.

    Attributes:
        name: For messages.
        made_from: What its result depends on.
        makes: Names of the files in the workspace that must exist for it to be finished.
        shares_folder: Whether other work writes into the same folder. Otherwise a folder with files
            that no note covers belongs to somebody else.
    """

    name: str
    made_from: MadeFrom
    makes: Sequence[str] = field(default=())
    shares_folder: bool = False


def perform(work: Work, workspace: Workspace, do: Callable[[bool], None], *, say: Say) -> None:
    """Do `work` unless the workspace marks it as finished.

    Args:
        work: What it depends on and what it makes.
        workspace: Gets the note.
        do: Does it; called with whether an interrupted attempt at this very work is resumed.
        say: Receives one line before and one after.

    Raises:
        FileError: The folder holds files of something else, or cannot be written.
    """
    standing = workspace.standing(work.made_from)
    whole = not missing_files(workspace.folder, work.makes)
    if standing.state == "finished" and whole:
        say(f"{work.name}: finished before, skipped")
        return
    if standing.state == "new" and not work.shares_folder:
        _require_own(workspace.folder)
    resumes = standing.state == "interrupted"
    say(f"{work.name}: {_announced(standing)}")
    started = time.monotonic()
    # The note stays when the work fails, even before it has written anything: the folder is ours.
    workspace.begin(work.made_from, resume=resumes)
    do(resumes)
    seconds = time.monotonic() - started
    workspace.finish(work.made_from, seconds)
    say(f"{work.name}: finished in {seconds:.0f} s")


def missing_files(folder: Path, names: Collection[str]) -> tuple[str, ...]:
    """Return those of `names` that are no files in `folder`."""
    return tuple(name for name in names if not (folder / name).is_file())


def _names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def _announced(standing: Standing) -> str:
    if standing.state == "interrupted":
        return "resumed where it was interrupted"
    if standing.state == "new":
        return "started"
    if standing.state == "finished":
        return "started again, because a file of its result is missing"
    if not standing.differences:
        return "started again"
    first, *others = standing.differences
    more = f" ({len(others)} more)" if others else ""
    return f"started again, because {first}{more}"


def _require_own(folder: Path) -> None:
    if folder.is_dir() and any(path.name != LOCK for path in folder.iterdir()):
        raise FileError(
            f"The folder of a stage must be empty or its own. Received '{folder}', which holds "
            "files and no note of a run. Choose another --output-dir, or remove the files."
        )


def _note_of(document: Mapping[str, Any]) -> Note:
    made_from, seconds = document.get("made_from"), document.get("seconds")
    number = float(seconds) if isinstance(seconds, int | float) else None
    if isinstance(made_from, str):
        return Note(None, document.get("finished") is True, number, old_digest=made_from)
    if "made_from" not in document:
        # Version 0.1.0 kept the digests of a scan by themselves.
        plain = all(isinstance(value, str) for value in document.values())
        return Note(dict(document)) if plain and document else Note()
    if not isinstance(made_from, dict):
        return Note()
    parts = document.get("parts")
    kept = tuple(map(str, parts)) if isinstance(parts, list) else ()
    return Note(made_from, document.get("finished") is True, number, kept)


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and len(value) >= 16 and not set(value) - set("0123456789abcdef")


def _shown(value: Any) -> str:
    text = json.dumps(value) if value is not None else "nothing"
    return text if len(text) <= 60 else f"{text[:57]}..."
