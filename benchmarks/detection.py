"""Train, prune, fine-tune, export and measure a detector; keep the rows.

    python benchmarks/detection.py --data DATA --weights BACKBONE --out OUT
    python benchmarks/detection.py --set cards --data DATA --weights BACKBONE --out OUT
    python benchmarks/detection.py -c digit_detector --out OUT

The rows go to `results/NAME.csv`, in place of earlier ones of the same name and stage. Stages that
are finished in OUT are not run again, measurements of the same files on the same machine included.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from tables import RESULTS, read_rows, save_rows

from flyweight.config.reading import load_config
from flyweight.config.settings import Config
from flyweight.engine.state import load_state, state_path
from flyweight.errors import FlyweightError
from flyweight.measuring.environment import commit, hardware
from flyweight.pipeline import demo_chain, run_chain
from flyweight.pipeline.inputs import open_val
from flyweight.pipeline.stages.comparison import CONTROL_NAME
from flyweight.report.rows import Report, Row

HERE = Path(__file__).resolve().parent
CONFIG = HERE / "yolov3_mobilenet_v1_bccd.yaml"
NAMES = {
    "yolov3_mobilenet_v1_bccd": "detection_bccd",
    "mobilenet_v2_clothing10": "classification_clothing10",
    "deeplabv3p_camvid11": "segmentation_camvid11",
    "digit_detector": "demo",
}
"""What the tables of the README call the runs of these configs."""
SETS = {
    "bccd": (),
    "cards": (
        *("data.root=det_cards", "num_classes=6"),
        # Each stage is evaluated once, at its end: nothing is chosen on the test images.
        *("train.steps=600", "train.evaluate_every=600"),
        *("finetune.steps=500", "finetune.evaluate_every=500"),
    ),
    "deeppcb": (
        *("data.root=det_deeppcb", "num_classes=6", "input_size=416"),
        "augment.multi_scale=[352,384,416,448]",  # Defects are a dozen pixels wide.
    ),
}
"""The sets that the default config can be run on, and what they change in it."""
TRAINED_IN = {"dense": "dense", CONTROL_NAME: "control", "pruned": "pruned"}
"""Names of networks to the folders of their trainings."""


def main(arguments: list[str] | None = None, config: Path = CONFIG) -> int:
    """Run the benchmark and write its rows; return the exit status."""
    options = parser(config).parse_args(arguments)
    try:
        label, chosen, stages = demo_chain(options.config, overrides(options))
        name = options.name or _name(label, options)
        results = run_chain(label, chosen, options.out, stages=stages, progress=True)
        finished = results["report"]
        rows = list(rows_of(finished.report, name, chosen, options))
        target = options.results / f"{name}.csv"
        write_rows(target, rows)
    except FlyweightError as error:
        _say(f"error: {error}")
        return 2
    print(f"wrote {target}; report: {finished.page}")
    return 0


def parser(config: Path = CONFIG) -> argparse.ArgumentParser:
    """Return the options of the benchmark."""
    made = argparse.ArgumentParser(description="Measure a network, dense and pruned")
    made.add_argument("-c", "--config", default=str(config))
    made.add_argument("--set", choices=SETS, default="bccd", help="for the default config")
    made.add_argument("-o", "--opt", action="append", default=[], metavar="KEY=VALUE")
    made.add_argument("--data", type=Path, help="folder that holds the config's data.root")
    made.add_argument("--weights", type=Path, help="weights to start from (pretrain_weights)")
    made.add_argument("--out", type=Path, default=Path("output/benchmark"))
    made.add_argument("--results", type=Path, default=RESULTS)
    made.add_argument("--name", help="name of the rows; by default from the config")
    made.add_argument("--note", default="", help="what a reader must know, such as a GPU")
    return made


def _name(label: str, options: argparse.Namespace) -> str:
    return f"detection_{options.set}" if options.set != "bccd" else NAMES.get(label, label)


def overrides(options: argparse.Namespace) -> list[str]:
    """Return what the options change in the config."""
    chosen = [*SETS[options.set], *options.opt]
    if options.data is not None:
        _, config = load_config(options.config, chosen)
        chosen.append(f"data.root={options.data / config.data.root}")
    if options.weights is not None:
        chosen.append(f"pretrain_weights={options.weights}")
    return chosen


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def rows_of(
    report: Report, name: str, config: Config, options: argparse.Namespace
) -> Iterator[dict[str, object]]:
    """Yield one row per stage, without values where something was not measured."""
    busy = any(note.startswith("NOISY") for note in report.notes)
    packages = {key: report.environment[key] for key in ("onnxruntime", "torch")}
    facts = {
        "pictures": len(open_val(config)),
        "hardware": hardware(),
        "runtime": ", ".join(f"{key} {version}" for key, version in packages.items()),
        "commit": commit(HERE.parent) or "",
        "date": report.created.isoformat(timespec="seconds"),
        "note": "; ".join(filter(None, [options.note, "noisy machine" if busy else ""])),
    }
    for row in report.rows:
        seconds = {"train_seconds": _seconds(row, options.out)}
        yield {"benchmark": name, "stage": row.stage, **_numbers(row), **seconds, **facts}


def _seconds(row: Row, folder: Path) -> str:
    """Return how long a network was trained here; nothing where it was not."""
    state = state_path(folder / TRAINED_IN.get(row.stage, "none"))
    return f"{load_state(state)[0].seconds:.0f}" if state.is_file() else ""


def _numbers(row: Row) -> dict[str, object]:
    found = row.quantities
    metric = found["metric"]
    numbers: dict[str, object] = {
        "metric_name": metric.name,
        "metric": f"{metric.value:.6f}",
        "macs": int(found["macs"].value),
        "params": int(found["parameters"].value),
    }
    if metric.difference is not None:
        low, high = metric.difference
        numbers |= {"metric_change_low": f"{low:.6f}", "metric_change_high": f"{high:.6f}"}
    if "file_size" in found:
        numbers["onnx_bytes"] = int(found["file_size"].value)
    for key in ("latency_1", "latency_2"):
        if key in found:
            ends = {"": found[key].value, "low_": found[key].low, "high_": found[key].high}
            numbers |= {f"{key}_{end}ms": f"{value:.4f}" for end, value in ends.items()}
    return numbers


def write_rows(path: Path, rows: list[dict[str, object]]) -> None:
    """Put `rows` into a results file in place of those with the same benchmark and stage."""
    new = {(str(row["benchmark"]), str(row["stage"])) for row in rows}
    kept = [row for row in read_rows(path) if (row["benchmark"], row["stage"]) not in new]
    save_rows(path, [*kept, *rows])


if __name__ == "__main__":
    sys.exit(main())
