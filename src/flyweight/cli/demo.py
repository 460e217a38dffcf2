"""`flyweight demo`: train, prune, export, measure and report on built-in data."""

from pathlib import Path
from typing import Annotated

import typer

from flyweight.cli import heavy
from flyweight.cli.options import Json, OutputDir, Overrides

ConfigOfDemo = Annotated[
    str, typer.Option("-c", "--config", help="Config to run the chain with.", metavar="CONFIG")
]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Run every stage again, finished stages included.")
]


def demo(
    output_dir: OutputDir = Path("output/demo"),
    opt: Overrides = None,
    config: ConfigOfDemo = "demo_digits",
    fresh: Fresh = False,
    json: Json = False,
) -> None:
    """Run the whole chain on built-in data.

    Trains, prunes, fine-tunes, exports, measures and reports, in a few minutes. Stages that an
    earlier run has finished are skipped.
    """
    heavy.demo(config, opt or [], output_dir, fresh=fresh, as_json=json)
