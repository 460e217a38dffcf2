"""Latency table: a file with the measured time of every layer at several widths."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from flyweight.errors import FileError, MeasureError
from flyweight.files import write_text
from flyweight.graph.cost import Geometry
from flyweight.graph.model_graph import ModelGraph
from flyweight.measuring.channel_step import FoundStep
from flyweight.measuring.timed_layers import TimedLayer, Widths, geometry_key
from flyweight.untrusted.failures import refusing
from flyweight.untrusted.file_bytes import read_text
from flyweight.untrusted.json_values import parse_json

FORMAT = 1


@dataclass(frozen=True)
class LayerTable:
    """Measured times of layers on one runtime, processor and thread count.

    Attributes:
        made_on: Conditions of the measurement, as text: `runtime` (name and version), `cpu`,
            `threads`.
        date: When the measurement began; UTC, ISO 8601.
        found: The fast channel step; None until it is found.
        layers: `geometry_key` to widths to time in milliseconds.
        whole: `network_key` of a dense network to its measured latency in milliseconds.
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
    def runtime(self) -> str:
        """Name of the runtime, without its version."""
        return self.made_on["runtime"].partition(" ")[0]

    @property
    def step(self) -> int:
        """The channel step: multiples of it are fast.

        Raises:
            MeasureError: The measurement was interrupted before the step was found.
        """
        if self.found is None:
            raise MeasureError(
                "A latency table must know the fast channel step. Received: one whose measurement "
                "was interrupted before. Resume it: flyweight bench --layers -c CONFIG --save FILE"
            )
        return self.found.step

    def missing(self, layer: TimedLayer) -> list[Widths]:
        """Return the widths of a layer that are not measured yet."""
        known = self.layers.get(geometry_key(layer.geometry), {})
        return [point for point in layer.points(self.step) if point not in known]

    def with_times(self, geometry: Geometry, times: Mapping[Widths, float]) -> "LayerTable":
        """Return the table with more times of one geometry, rounded to nanoseconds."""
        name = geometry_key(geometry)
        rounded = {widths: round(ms, 6) for widths, ms in times.items()}
        return replace(self, layers={**self.layers, name: {**self.layers.get(name, {}), **rounded}})

    def with_whole(self, graph: ModelGraph, latency_ms: float) -> "LayerTable":
        """Return the table with the latency of a dense network."""
        return replace(self, whole={**self.whole, network_key(graph): latency_ms})

    def to_json(self) -> str:
        """Return the table as JSON, one layer a line."""
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
            MeasureError: The text is no latency table, or has another format.
        """
        must = "A latency table must be what flyweight wrote."
        remedy = "Measure it again: flyweight bench --layers"
        with refusing(MeasureError, must, "text", remedy):
            data = parse_json(text)
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

    def save(self, path: Path) -> None:
        """Write the table to `path`, complete or not at all."""
        write_text(path, self.to_json())


def read_table(path: str | Path) -> LayerTable:
    """Return the table in a file.

    Raises:
        FileError: The file cannot be read.
        MeasureError: It is no latency table.
    """
    remedy = "Check the path, or measure one: flyweight bench --layers -c CONFIG --save FILE"
    with refusing(FileError, "A latency table must be readable.", f"'{path}'", remedy):
        text = read_text(path)
    return LayerTable.from_json(text)


def require_runtime(table: LayerTable, runtime: str) -> None:
    """Refuse a table that was measured on another runtime than the one a budget is for.

    Raises:
        MeasureError: The runtimes differ.
    """
    if table.runtime != runtime:
        raise MeasureError(
            "A latency table must be of the runtime that the budget is for. Received: a table of "
            f"{table.made_on['runtime']} for a budget on {runtime}. Measure another table: "
            f"flyweight bench --layers -c CONFIG --runtime {runtime} --save FILE"
        )


def network_key(graph: ModelGraph) -> str:
    """Return the text that identifies a dense network in a table: its structure and its input."""
    keywords = f" {json.dumps(graph.keywords)}" if graph.keywords else ""
    return f"{graph.fingerprint} {json.dumps(graph.inputs)}{keywords}"
