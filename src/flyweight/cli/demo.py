"""`flyweight demo`: train, prune, export, measure and report on built-in data."""

from pathlib import Path
from typing import Annotated

import typer

from flyweight import pipeline
from flyweight.cli import heavy
from flyweight.cli.console import show
from flyweight.cli.options import Json, OutputDir, Overrides
from flyweight.pipeline.preflight import require_paths

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
    name, settings = pipeline.load_config(config, opt or ())
    require_paths(settings)
    results = pipeline.run_chain(name, settings, output_dir, fresh=fresh, progress=True)
    result = results["report"]
    if json:
        show(result.report.to_json())
        return
    show(heavy.comparison_table(result.report))
    show(f"report: {result.page}")
