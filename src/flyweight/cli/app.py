"""The table of commands, and the `flyweight` command that loads the file of the one it is given.

`flyweight --help` prints the table and loads no command; `flyweight train --help` loads `train`
alone. A command's file declares its options, calls a stage of the pipeline and prints the result.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple

import typer
import typer.core
import typer.main

from flyweight import __version__
from flyweight.on_demand import load


class Entry(NamedTuple):
    """One row of the table of commands.

    Attributes:
        function: Where the command's function is, as `on_demand.load` takes it. Its parameters are
            the command's options.
        summary: The first line of the function's docstring.
    """

    function: str
    summary: str


COMMANDS: Mapping[str, Entry] = {
    "models": Entry("flyweight.cli.models:models", "List models and built-in configs."),
    "init": Entry("flyweight.cli.init:init", "Write a config for a folder of images."),
    "params": Entry("flyweight.cli.params:params", "List channel groups and why some are frozen."),
    "train": Entry("flyweight.cli.train:train", "Train; save best and last checkpoint."),
    "eval": Entry("flyweight.cli.evaluate:evaluate", "Print the metrics of a checkpoint."),
    "sensitivity": Entry(
        "flyweight.cli.sensitivity:sensitivity", "Measure how pruning affects the metric."
    ),
    "prune": Entry("flyweight.cli.prune:prune", "Prune channels, then fine-tune."),
    "quantize": Entry(
        "flyweight.cli.quantize:quantize", "Quantize a network; measure what that costs."
    ),
    "distill": Entry("flyweight.cli.distill:distill", "Train a student against a teacher."),
    "export": Entry("flyweight.cli.export:export", "Write a checkpoint as an ONNX file."),
    "bench": Entry("flyweight.cli.bench:bench", "Measure latency, memory and size."),
    "predict": Entry("flyweight.cli.predict:command", "Draw and list predictions on images."),
    "check-data": Entry(
        "flyweight.cli.check_data:check_data", "Check a config's data; draw a contact sheet."
    ),
    "convert-data": Entry(
        "flyweight.cli.convert_data:convert_data", "Write a detection set in another layout."
    ),
    "report": Entry("flyweight.cli.report:report", "Write and print the report of a run."),
    "demo": Entry("flyweight.cli.demo:demo", "Run the whole chain on built-in data."),
}


class CommandsOnDemand(Mapping[str, Any]):
    """Click commands by name, each built from its own file when it is looked up."""

    def __getitem__(self, name: str) -> Any:
        entry = COMMANDS[name]
        alone = typer.Typer(add_completion=False, rich_markup_mode=None)
        alone.command(name)(load(entry.function))
        return typer.main.get_command(alone)

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class CommandTable(typer.core.TyperGroup):
    """The `flyweight` command: its subcommands load on demand, its help shows the table."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = CommandsOnDemand()  # type: ignore[assignment]  # nothing is ever added

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the table into the help text, without loading any command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])


app = typer.Typer(
    name="flyweight",
    cls=CommandTable,
    help="Make trained vision models small and fast under a budget, and prove it.",
    add_completion=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"flyweight {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
