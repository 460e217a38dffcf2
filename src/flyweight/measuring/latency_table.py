"""A file of measured layers: what each takes, at which widths, on which runtime and machine."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from flyweight.errors import FileError, MeasureError
from flyweight.files import write_text
from flyweight.graph.cost import Geometry
from flyweight.graph.model_graph import ModelGraph
from flyweight.measuring.channel_step import FoundStep
from flyweight.measuring.timed_layers import TimedLayer, Widths, describe

FORMAT = 1


@dataclass(frozen=True)
class LayerTable:
    """Measured times.

    Attributes:
        made_on: What the times hold for: `runtime`, `cpu`, `threads`, as text.
        date: When it was begun; UTC, ISO 8601.
        found: The fast channel step; None until it is found.
        layers: Geometry in words to widths to ms.
        whole: Dense networks to their measured latency in ms, see `network_key`.
    """

    made_on: Mapping[str, str]
    date: str
    found: FoundStep | None = None
    layers: Mapping[str, Mapping[Widths, float]] = field(default_factory=dict)
    whole: Mapping[str, float] = field(default_factory=dict)

    @property
    def threads(self) -> int:
        """Threads of one inference."""
        return int(self.made_on["threads"])

    @property
    def step(self) -> int:
        """Multiples of channels that are fast.

        Raises:
            MeasureError: The table was cut off before it was found.
        """
        if self.found is None:
            raise MeasureError(
                "A latency table must know the fast channel step. Received one that was cut off "
                "before. Go on with it: flyweight bench --layers --save FILE"
            )
        return self.found.step

    def missing(self, layer: TimedLayer) -> list[Widths]:
        """Return the widths of a layer that are not measured yet."""
        known = self.layers.get(describe(layer.geometry), {})
        return [point for point in layer.points(self.step) if point not in known]

    def with_times(self, geometry: Geometry, times: Mapping[Widths, float]) -> "LayerTable":
        """Return the table with more times of one geometry, in nanoseconds' precision."""
        name = describe(geometry)
        rounded = {widths: round(ms, 6) for widths, ms in times.items()}
        return replace(self, layers={**self.layers, name: {**self.layers.get(name, {}), **rounded}})

    def with_whole(self, graph: ModelGraph, latency_ms: float) -> "LayerTable":
        """Return the table with the latency of a dense network."""
        return replace(self, whole={**self.whole, network_key(graph): latency_ms})

    def to_json(self) -> str:
        """Return the table as text."""
        found = self.found
        values = {
            "format": FORMAT,
            "made_on": dict(self.made_on),
            "date": self.date,
            "step": None if found is None else found.step,
            "excess": {} if found is None else {str(k): v for k, v in found.excess.items()},
            "whole_ms": dict(self.whole),
        }
        lines = [f' "{key}": {json.dumps(value)}' for key, value in values.items()]
        rows = [
            f"  {json.dumps(name)}: "
            + json.dumps([[*widths, ms] for widths, ms in sorted(times.items())])
            for name, times in self.layers.items()
        ]
        lines.append(' "layers_ms": {\n' + ",\n".join(rows) + "\n }")
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @classmethod
    def from_json(cls, text: str) -> "LayerTable":
        """Read what `to_json` wrote.

        Raises:
            MeasureError: The text is something else, or of another format.
        """
        try:
            data = json.loads(text)
            if data["format"] != FORMAT:
                raise ValueError(f"format {data['format']!r}, where {FORMAT} is read")
            excess = {int(step): float(more) for step, more in data["excess"].items()}
            step = data["step"]
            return cls(
                made_on={str(name): str(value) for name, value in data["made_on"].items()},
                date=str(data["date"]),
                found=None if step is None else FoundStep(int(step), excess),
                layers={
                    str(name): {(int(a), int(b)): float(ms) for a, b, ms in rows}
                    for name, rows in data["layers_ms"].items()
                },
                whole={str(name): float(ms) for name, ms in data["whole_ms"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise MeasureError(
                "A latency table must be what flyweight wrote. Received text that fails with "
                f"{type(error).__name__}: {error}. Make it again: flyweight bench --layers"
            ) from error

    def save(self, path: Path) -> None:
        """Write the table to `path`, whole or not at all."""
        write_text(path, self.to_json())


def read_table(path: str | Path) -> LayerTable:
    """Return the table in a file.

    Raises:
        FileError: The file cannot be read.
        MeasureError: It is no table.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(
            f"A latency table must be readable. Received '{path}': {error}. Check the path, or "
            "make one: flyweight bench --layers -c CONFIG --save FILE"
        ) from error
    return LayerTable.from_json(text)


def network_key(graph: ModelGraph) -> str:
    """Return what a table knows a dense network by: its structure and its input."""
    return f"{graph.fingerprint} {json.dumps(graph.inputs)}"
