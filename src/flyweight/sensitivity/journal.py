"""Journal of a scan: one file per batch, so that an interruption loses at most one batch."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from flyweight.errors import DataError
from flyweight.sensitivity.scanned_cuts import LayerCut
from flyweight.sensitivity.state_json import pack, unpack
from flyweight.untrusted.failures import refusing
from flyweight.workspace import MadeFrom, Workspace, differences

NOTE = "made_from.json"

States = dict[LayerCut, Any]
"""The states of metrics, by cut."""


class Journal:
    """Workspace beside the results, `RESULTS.parts`, that holds the states of every batch.

    Args:
        path: The file of the results; None keeps the states in memory.
        made_from: What they depend on, as digests by name.

    Raises:
        DataError: The folder holds a scan of something else; what differs is named.
    """

    def __init__(self, path: Path | None, made_from: Mapping[str, str]) -> None:
        self.workspace = None if path is None else parts_of(path)
        self._held: dict[int, tuple[str, States]] = {}
        if self.workspace is None:
            return
        note = self.workspace.read()
        if note is not None and note.made_from is not None:
            _require_same(note.made_from, made_from, self.workspace.folder)
        elif note is not None and any(self.workspace.folder.glob("batch-*.json")):
            raise DataError(
                "A scan must be resumed with the network and data that it began with. Received "
                f"'{self.workspace.note_path}', a damaged note of them. Remove that folder to "
                "start from the beginning."
            )
        else:
            # Parts without a note, of which a kill can leave some, may be of anything.
            self.workspace.remove()
            self.workspace.begin(MadeFrom(made_from))

    @property
    def folder(self) -> Path | None:
        """The folder of the parts; None where they are in memory."""
        return None if self.workspace is None else self.workspace.folder

    def locked(self) -> AbstractContextManager[None]:
        """Return a context in which no other scan can use the folder.

        Raises:
            FileError: On entry: another scan works there.
        """
        return nullcontext() if self.workspace is None else self.workspace.locked()

    @property
    def begun(self) -> bool:
        """Whether a batch was measured already."""
        return self._read(0)[0] is not None

    def held(self, place: int, digest: str) -> States:
        """Return the states of batch number `place`; none if it was not measured yet.

        Raises:
            DataError: Another batch was measured at this place.
        """
        found, states = self._read(place)
        if found is not None and found != digest:
            raise DataError(
                "A scan must be resumed with the batches that it began with. Received another "
                f"batch number {place + 1} than '{self.folder or 'before'}' has. Use the same "
                "batches in the same order, or remove that folder to start from the beginning."
            )
        return states

    def add(self, place: int, digest: str, states: States) -> None:
        """Save more states of batch number `place`."""
        states = {**self.held(place, digest), **states}
        if self.workspace is None:
            self._held[place] = (digest, states)
            return
        rows = [[layer, ratio, pack(state)] for (layer, ratio), state in states.items()]
        self.workspace.write_part(_name(place), {"batch": digest, "states": rows})

    def all(self, count: int) -> Iterator[States]:
        """Yield the states of the first `count` batches, in order."""
        for place in range(count):
            yield self._read(place)[1]

    def close(self) -> None:
        """Remove the parts, because the results are complete."""
        if self.workspace is not None:
            self.workspace.remove()

    def _read(self, place: int) -> tuple[str | None, States]:
        if self.workspace is None:
            return self._held.get(place, (None, {}))
        must = "A part of a scan must be as it was written."
        remedy = "Remove the file to measure that batch again."
        received = f"'{self.workspace.folder / _name(place)}'"
        with refusing(DataError, must, received, remedy):
            data = self.workspace.read_part(_name(place))
            if data is None:
                return None, {}
            states = {(layer, ratio): unpack(state) for layer, ratio, state in data["states"]}
            return str(data["batch"]), states


def parts_of(path: Path) -> Workspace:
    """Return the workspace of a scan that writes its results to `path`."""
    return Workspace(path.with_name(path.name + ".parts"), NOTE)


def _name(place: int) -> str:
    return f"batch-{place:06}.json"


def _require_same(found: Mapping[str, Any], wanted: Mapping[str, str], folder: Path) -> None:
    both = found.keys() & wanted.keys()  # An earlier version noted less.
    known = {name: found[name] for name in both}
    for one in differences(known, MadeFrom({name: wanted[name] for name in both})):
        raise DataError(
            f"A scan must be resumed with the {one.name} that it began with. Received '{folder}' "
            f"of another ({one.was}, now {one.now}). Use the same again, or remove that folder "
            "to start from the beginning."
        )
