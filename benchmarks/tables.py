"""Fill the tables of the pages from the measured rows, or check that they are those rows.

    python benchmarks/tables.py           # write
    python benchmarks/tables.py --check   # compare; status 1 if they differ

A table stands between `<!-- table: NAME -->` and `<!-- end -->` and shows `results/NAME.csv`.
Where that file does not exist, nothing stands there. `docs/summary.svg` is drawn from rows, too.
"""

import argparse
import csv
import datetime
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import coverage_table
import quantization_table

from flyweight.files import replacing, write_text
from flyweight.report import quantities
from flyweight.report.figure import summary_svg
from flyweight.report.markdown import result_table
from flyweight.report.rows import Quantity, Report, Row

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
PAGES = {
    HERE.parent / "README.md": "benchmarks/results",
    HERE.parent / "docs" / "measured.md": "../benchmarks/results",
}
"""Pages with tables, and where the results lie seen from them."""
PLAIN = {
    "faces_levels": ("stage", "look", "easy", "medium", "hard"),
    "sensitivity": (
        *("case", "mode", "pictures", "scan_seconds", "plain_seconds", "ratio"),
        *("ratio_low", "ratio_high", "spearman", "same_ratios"),
    ),
    "quantization": (
        *("network", "tool", "instructions", "metric_float", "metric", "output_snr_db"),
        *("integer_layers", "layers", "onnxruntime_ratio", "openvino_ratio"),
        *("onnxruntime_dense_ratio", "openvino_dense_ratio"),
        *("file_bytes_float", "file_bytes", "noisy"),
    ),
    "distillation_gains": (
        *("case", "cut", "tested_on", "steps", "clip_norm", "macs_share", "method", "runs"),
        *("metric_before", "plain", "metric", "gain", "gain_low", "gain_high"),
        *("dense_metric", "dense_longer"),
    ),
}
"""Tables that show columns of a file as they are."""
COLUMNS = (
    "benchmark",
    "stage",
    "metric_name",
    "metric",
    "metric_change_low",
    "metric_change_high",
    "macs",
    "params",
    "onnx_bytes",
    "latency_1_ms",
    "latency_1_low_ms",
    "latency_1_high_ms",
    "latency_2_ms",
    "latency_2_low_ms",
    "latency_2_high_ms",
    "pictures",
    "train_seconds",
    "hardware",
    "runtime",
    "commit",
    "date",
    "note",
)
TITLES = {"detection_bccd": "YOLOv3-MobileNetV1 on blood cells (BCCD)"}
"""Names of benchmarks for readers, where the name of the file does not do."""
DRAWINGS = {HERE.parent / "docs" / "summary.svg": "detection_bccd"}
"""Drawings, and the results that they show."""
_MARKERS = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def read_rows(path: Path, columns: tuple[str, ...] = COLUMNS) -> list[dict[str, str]]:
    """Return the rows of a results file, in order; none where there is no file.

    Raises:
        ValueError: Its columns are others than `columns`.
    """
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != columns:
            raise ValueError(f"{path} must have the columns {', '.join(columns)}")
        return list(reader)


def save_rows(
    path: Path, rows: Iterable[Mapping[str, object]], columns: tuple[str, ...] = COLUMNS
) -> None:
    """Replace a results file."""
    with replacing(path) as draft, draft.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def replace_row(
    path: Path, row: Mapping[str, object], columns: tuple[str, ...], key: Iterable[str]
) -> None:
    """Write a row in place of the one that has the same values in the columns of `key`."""
    new = {name: str(row.get(name, "")) for name in columns}
    names = tuple(key)
    kept = [old for old in read_rows(path, columns) if any(old[n] != new[n] for n in names)]
    save_rows(path, [*kept, new], columns)


def markdown(rows: list[dict[str, str]], source: str) -> str:
    """Return rows as a table with the information needed to interpret it, or nothing."""
    if not rows:
        return ""
    first, report = rows[0], report_of(rows)
    notes = dict.fromkeys(row["note"] for row in rows if row["note"])
    facts = [
        f"{first['pictures']} images",
        first["hardware"],
        first["runtime"],
        f"commit {first['commit'][:12] or 'unknown'}",
        first["date"][:10],
        f"[row]({source})",
        *notes,
    ]
    return f"{result_table(report)}\n\n{'; '.join(facts)}.\n"


def report_of(rows: list[dict[str, str]]) -> Report:
    """Return the rows of one benchmark as a report."""
    first = rows[0]
    title = TITLES.get(first["benchmark"], first["benchmark"])
    return Report(
        title=title,
        subject=title,
        created=datetime.datetime.fromisoformat(first["date"]),
        command="",
        environment={},
        rows=tuple(Row(stage=row["stage"], quantities=_quantities(row)) for row in rows),
    )


def _quantities(row: dict[str, str]) -> dict[str, Quantity]:
    metric = quantities.metric(row["metric_name"], float(row["metric"]), method="evaluation")
    if row["metric_change_low"]:
        ends = float(row["metric_change_low"]), float(row["metric_change_high"])
        metric = metric.model_copy(update={"difference": ends})
    found = {
        "metric": metric,
        "macs": quantities.macs(int(row["macs"]), method="traced"),
        "parameters": quantities.parameters(int(row["params"]), method="learnable values"),
    }
    if row["onnx_bytes"]:
        found["file_size"] = quantities.file_size(int(row["onnx_bytes"]), method="ONNX")
    for threads in (1, 2):
        name = f"latency_{threads}"
        if row[f"{name}_ms"]:
            found[name] = quantities.latency(
                float(row[f"{name}_ms"]),
                low_ms=float(row[f"{name}_low_ms"]),
                high_ms=float(row[f"{name}_high_ms"]),
                threads=threads,
                runtime=row["runtime"],
                method="median",
            )
    return found


def filled(text: str, results: Path = RESULTS, seen_from: str = "benchmarks/results") -> str:
    """Return a page with every table updated from `results`.

    Args:
        text: Of the page.
        results: Folder of the rows.
        seen_from: Where that lies for the page's links.
    """

    def table(match: re.Match[str]) -> str:
        head, name, end = match.groups()
        path, source = results / f"{name}.csv", f"{seen_from}/{name}.csv"
        if name == "graph_coverage":
            rows = read_rows(path, coverage_table.COLUMNS)
            return head + coverage_table.markdown(rows, source) + end
        if name == "quantization_summary":
            with (results / "quantization.csv").open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
            source = f"{seen_from}/quantization.csv"
            return head + quantization_table.markdown(rows, source) + end
        if name in PLAIN:
            return head + plain(path, PLAIN[name], source) + end
        return head + markdown(read_rows(path), source) + end

    return _MARKERS.sub(table, text)


def plain(path: Path, columns: tuple[str, ...], source: str) -> str:
    """Return columns of a file as a table, or nothing where there is no file."""
    if not path.is_file():
        return ""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [columns, ("---",) * len(columns), *([row[c] for c in columns] for row in rows)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\n[rows]({source})\n"


def main(arguments: list[str] | None = None) -> int:
    """Write or check the tables of the pages; return the exit status."""
    parser = argparse.ArgumentParser(description="Fill tables from benchmarks/results")
    parser.add_argument("--check", action="store_true", help="compare only")
    options = parser.parse_args(arguments)
    status = 0
    for page, after in _written():
        if not options.check:
            write_text(page, after)
        elif page.read_text(encoding="utf-8") != after:
            print(f"{page.name} differs from benchmarks/results. Run: python benchmarks/tables.py")
            status = 1
    return status


def _written() -> Iterator[tuple[Path, str]]:
    """Yield every file with measured numbers, and what must stand in it."""
    for page, seen_from in PAGES.items():
        yield page, filled(page.read_text(encoding="utf-8"), seen_from=seen_from)
    for drawing, name in DRAWINGS.items():
        yield drawing, summary_svg(report_of(read_rows(RESULTS / f"{name}.csv")))


if __name__ == "__main__":
    sys.exit(main())
