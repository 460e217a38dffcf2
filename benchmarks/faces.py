"""Train, prune, fine-tune and measure BlazeFace; evaluate it at every level and in every way.

    python benchmarks/faces.py --data DATA --out OUT

The chain is that of `detection.py`, whose options this script has; its rows go to
`results/faces.csv`. Then both networks look at the test images at the network's input size, at
the images' own size, and at several sizes with a vote (minutes for each network); `--looks` names
some of them. These rows go to `results/faces_levels.csv`, in place of earlier ones of the same
name, stage and look.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import detection
from tables import read_rows, save_rows

from flyweight.config.reading import load_config
from flyweight.config.settings import Config
from flyweight.data.layouts.wider_truth import LEVELS
from flyweight.engine.run import BEST
from flyweight.errors import FlyweightError
from flyweight.pipeline.evaluation import evaluate_model
from flyweight.pipeline.inputs import load_model, open_val

NAME = "faces"
CONFIG = Path(__file__).resolve().parent / "blazeface_faces.yaml"
LOOKS = ("input", "native", "multi_scale")
COLUMNS = ("benchmark", "stage", "look", *LEVELS, "pictures")


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark and write its rows; return the exit status."""
    own = argparse.ArgumentParser(add_help=False)
    own.add_argument("--looks", nargs="+", choices=LOOKS, default=LOOKS)
    looks, given = own.parse_known_args(arguments)
    told = ["-c", str(CONFIG), "--name", NAME, *given]
    status = detection.main(told)
    if status:
        return status
    options = detection.parser().parse_args(told)
    try:
        _, config = load_config(options.config, detection.overrides(options))
        rows = list(level_rows(options.name, config, options.out, looks.looks))
        target = options.results / f"{options.name}_levels.csv"
        new = {(row["benchmark"], row["stage"], row["look"]) for row in rows}
        kept = [
            row
            for row in read_rows(target, COLUMNS)
            if (row["benchmark"], row["stage"], row["look"]) not in new
        ]
        save_rows(target, [*kept, *rows], COLUMNS)
    except FlyweightError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {target}")
    return 0


def level_rows(
    name: str, config: Config, folder: Path, looks: Sequence[str]
) -> Iterator[dict[str, object]]:
    """Yield what each checkpoint of a finished chain finds, by the way it looks."""
    images = open_val(config)
    for stage in ("dense", "pruned"):
        model, _ = load_model(folder / stage / BEST)
        for look in looks:
            settings = config.detect.model_copy(update={"test": look})
            seen = config.model_copy(update={"detect": settings})
            found = evaluate_model(model, seen, images)
            levels = {level: f"{found[f'wider_{level}']:.6f}" for level in LEVELS}
            row = {"benchmark": name, "stage": stage, "look": look}
            yield {**row, **levels, "pictures": len(images)}


if __name__ == "__main__":
    sys.exit(main())
