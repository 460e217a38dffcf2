"""`flyweight demo`: train, prune, export, measure and report on built-in data."""

from pathlib import Path
from typing import Annotated

import typer

from flyweight import pipeline
from flyweight.cli import heavy
from flyweight.cli.console import note_busy_machine, show
from flyweight.cli.options import Json, OutputDir, Overrides
from flyweight.pipeline.preflight import require_paths

ConfigOfDemo = Annotated[
    str, typer.Option("-c", "--config", help="Config to run the chain with.", metavar="CONFIG")
]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Run every stage again, finished stages included.")
]


FromScratch = Annotated[
    bool,
    typer.Option(
        "--from-scratch",
        help="Train the dense network first, instead of starting from the trained one that comes "
        "with flyweight; takes most of an hour.",
    ),
]


def demo(
    output_dir: OutputDir = Path("output/demo"),
    opt: Overrides = None,
    config: ConfigOfDemo = "digit_detector",
    from_scratch: FromScratch = False,
    fresh: Fresh = False,
    json: Json = False,
) -> None:
    """Run the whole chain on built-in data.

    Prunes a trained network, fine-tunes, exports, measures and reports, in a few minutes. With
    another config it trains the network first. Stages that an earlier run has finished are skipped.
    """
    require_paths(pipeline.load_config(config, opt or ())[1])  # Mistakes need no torch.
    note_busy_machine()
    name, settings, stages = pipeline.demo_chain(config, opt or (), from_scratch=from_scratch)
    results = pipeline.run_chain(
        name, settings, output_dir, stages=stages, fresh=fresh, progress=True
    )
    result = results["report"]
    if json:
        show(result.report.to_json())
        return
    show(heavy.result_table(result.report))
    show(f"report: {result.page}")
