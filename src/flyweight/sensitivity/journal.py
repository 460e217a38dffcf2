"""What a scan has done so far, a file per batch, so that being cut off loses one batch at most."""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flyweight.errors import DataError
from flyweight.files import write_text
from flyweight.sensitivity.scanned_cuts import Cut
from flyweight.sensitivity.state_json import pack, unpack

States = dict[Cut, Any]
"""What metrics collected, by cut."""


class Journal:
    """A folder beside the results that holds the states of every batch.

    Args:
        path: Of the results; None keeps the states in memory.
        made_from: What they depend on, as digests by name.

    Raises:
        DataError: The folder holds a scan of something else; what differs is named.
    """

    def __init__(self, path: Path | None, made_from: Mapping[str, str]) -> None:
        self.folder = None if path is None else path.with_name(path.name + ".parts")
        self._held: dict[int, tuple[str, States]] = {}
        if self.folder is None:
            return
        facts = self.folder / "made_from.json"
        if facts.is_file():
            _require_same(json.loads(facts.read_text(encoding="utf-8")), made_from, self.folder)
        else:
            write_text(facts, json.dumps(dict(made_from)))

    def held(self, place: int, digest: str) -> States:
        """Return what is known of batch number `place`; nothing where it was not seen yet.

        Raises:
            DataError: Another batch was seen in its place.
        """
        found, states = self._read(place)
        if found is not None and found != digest:
            raise DataError(
                "A scan must go on with the batches that it began with. Received another batch "
                f"number {place + 1} than '{self.folder or 'before'}' has. Keep the batches in one "
                "order, or begin anew (without that folder)."
            )
        return states

    def add(self, place: int, digest: str, states: States) -> None:
        """Keep more states of batch number `place`."""
        states = {**self.held(place, digest), **states}
        if self.folder is None:
            self._held[place] = (digest, states)
            return
        rows = [[layer, ratio, pack(state)] for (layer, ratio), state in states.items()]
        write_text(self._file(place), json.dumps({"batch": digest, "states": rows}))

    def all(self, count: int) -> Iterator[States]:
        """Yield the states of the first `count` batches, in order."""
        for place in range(count):
            yield self._read(place)[1]

    def close(self) -> None:
        """Remove the parts: the results are whole."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _file(self, place: int) -> Path:
        if self.folder is None:
            raise ValueError("a journal in memory has no files")
        return self.folder / f"batch-{place:06}.json"

    def _read(self, place: int) -> tuple[str | None, States]:
        if self.folder is None:
            return self._held.get(place, (None, {}))
        path = self._file(place)
        if not path.is_file():
            return None, {}
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            states = {(layer, ratio): unpack(state) for layer, ratio, state in data["states"]}
            return data["batch"], states
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"A part of a scan must be as it was written. Received '{path}': "
                f"{type(error).__name__}: {error}. Remove it to have that batch done again."
            ) from error


def _require_same(found: Mapping[str, str], wanted: Mapping[str, str], folder: Path) -> None:
    for name, value in wanted.items():
        if found.get(name) != value:
            raise DataError(
                f"A scan must go on with the {name} that it began with. Received '{folder}' of "
                f"another ({found.get(name)}, now {value}). Give the same again, or remove that "
                "folder to begin anew."
            )
