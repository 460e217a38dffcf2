"""Every command with its options. Bodies load on use, so that `--help` answers at once."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="flyweight",
    help="Make trained vision models small and fast under a budget, and prove it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ConfigName = Annotated[
    str, typer.Option("-c", "--config", help="A built-in name (see `models`) or a YAML file.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("-o", "--opt", help="Overrides of the config: key=value.", metavar="KEY=VALUE"),
]
PrunedParams = Annotated[
    str,
    typer.Option(
        "-p", "--pruned-params", "--pruned_params", help="Layers, comma or space between."
    ),
]
PrunedRatios = Annotated[
    str,
    typer.Option("--pruned-ratios", "--pruned_ratios", help="Share of channels to remove, each."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Weights = Annotated[
    str, typer.Option("-w", "--weights", help="Checkpoint; the same as -o weights=.")
]
OutputDir = Annotated[
    Path, typer.Option("--output-dir", "--output_dir", help="Folder for what is written.")
]


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        from flyweight import __version__

        typer.echo(f"flyweight {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def models(json: Json = False) -> None:
    """List the models of the zoo and the configs that come with them."""
    from flyweight.cli import inspect

    inspect.models(as_json=json)


@app.command()
def params(
    config: ConfigName,
    opt: Overrides = None,
    weights: Weights = "",
    json: Json = False,
) -> None:
    """List parameters, coupled groups, and why a group is frozen."""
    from flyweight.cli import inspect

    inspect.params(config, opt or [], weights, as_json=json)


@app.command()
def train(
    config: ConfigName,
    opt: Overrides = None,
    resume: Annotated[
        bool, typer.Option("-r", "--resume", help="Go on where a run was cut off.")
    ] = False,
    json: Json = False,
) -> None:
    """Train a model; save the best and the last checkpoint."""
    from flyweight.cli import train as command

    command.train(config, opt or [], resume=resume, as_json=json)


@app.command("eval")
def evaluate(
    config: ConfigName,
    opt: Overrides = None,
    weights: Weights = "",
    pruned_params: PrunedParams = "",
    pruned_ratios: PrunedRatios = "",
    json: Json = False,
) -> None:
    """Print the metrics of a checkpoint, pruned or not; ratios need not be repeated."""
    from flyweight.cli import train as command

    command.evaluate(config, opt or [], weights, cut=(pruned_params, pruned_ratios), as_json=json)


@app.command()
def prune(
    config: ConfigName,
    opt: Overrides = None,
    pruned_params: PrunedParams = "",
    pruned_ratios: PrunedRatios = "",
    criterion: Annotated[
        str,
        typer.Option("--prune-criterion", "--prune_criterion", help="How channels are scored."),
    ] = "",
    print_params: Annotated[
        bool,
        typer.Option("-P", "--print-params", "--print_params", help="List parameters and exit."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Price the plan; needs neither data nor weights.")
    ] = False,
    flops_convention: Annotated[
        str, typer.Option("--flops-convention", help="real, or paddle as the originals printed.")
    ] = "real",
    evaluate_first: Annotated[
        bool, typer.Option("--eval", help="Evaluate before fine-tuning, too.")
    ] = False,
    finetune: Annotated[
        bool, typer.Option("--finetune/--no-finetune", help="Train after the cut.")
    ] = True,
    resume: Annotated[
        bool, typer.Option("-r", "--resume", help="Go on where a run was cut off.")
    ] = False,
    json: Json = False,
) -> None:
    """Cut channels at given ratios, then fine-tune; the checkpoint needs no ratios again."""
    from flyweight.cli import inspect
    from flyweight.cli import prune as command

    if print_params:
        inspect.print_params(config, opt or [])
        return
    request = command.Request(config, tuple(opt or ()), pruned_params, pruned_ratios, criterion)
    if dry_run:
        command.dry_run(request, flops_convention, as_json=json)
    else:
        options = command.Options(evaluate_first, finetune, resume, json)
        command.prune(request, options)


@app.command()
def export(
    config: Annotated[str, typer.Option("-c", "--config", help="Names the file; optional.")] = "",
    opt: Overrides = None,
    weights: Weights = "",
    pruned_params: PrunedParams = "",
    pruned_ratios: PrunedRatios = "",
    output_dir: OutputDir = Path("output"),
    end: Annotated[
        str, typer.Option("--end", help="detections (NMS inside), decoded, or raw.")
    ] = "detections",
    json: Json = False,
) -> None:
    """Write a checkpoint as ONNX, checked against PyTorch; its description lies beside it."""
    from flyweight.cli import deploy

    source = deploy.Source(config, tuple(opt or ()), weights)
    deploy.export(source, (pruned_params, pruned_ratios), output_dir, end=end, as_json=json)


@app.command()
def bench(
    files: Annotated[list[Path], typer.Argument(help="ONNX files.")],
    threads: Annotated[str, typer.Option("--threads", help="Thread counts.")] = "1,2",
    seconds: Annotated[
        float, typer.Option("--seconds", help="Time for each file at each thread count.")
    ] = 5.0,
    runs: Annotated[int, typer.Option("--runs", help="Timed inferences wanted for each.")] = 100,
    shape: Annotated[
        list[str] | None,
        typer.Option("--shape", help="For inputs without static sizes: images=1x3x320x320."),
    ] = None,
    json: Json = False,
) -> None:
    """Measure latency, memory and size of exported models, interleaved, each in its own process."""
    from flyweight.cli import deploy

    deploy.bench(files, threads, deploy.Protocol(seconds, runs, tuple(shape or ())), as_json=json)


@app.command()
def predict(
    pictures: Annotated[
        list[Path] | None, typer.Argument(help="Pictures or folders of pictures.")
    ] = None,
    config: Annotated[
        str, typer.Option("-c", "--config", help="Where weights lie; optional.")
    ] = "",
    opt: Overrides = None,
    weights: Weights = "",
    infer_img: Annotated[
        Path | None, typer.Option("--infer-img", "--infer_img", help="One picture.")
    ] = None,
    infer_dir: Annotated[
        Path | None, typer.Option("--infer-dir", "--infer_dir", help="A folder of pictures.")
    ] = None,
    output_dir: OutputDir = Path("output"),
    threshold: Annotated[
        float, typer.Option("--draw-threshold", "--draw_threshold", help="Lowest score drawn.")
    ] = 0.5,
    json: Json = False,
) -> None:
    """Draw what a checkpoint (or an exported .onnx) finds on pictures."""
    from flyweight.cli import predict as command

    given = [*(pictures or []), *(path for path in (infer_img, infer_dir) if path is not None)]
    source = command.Source(config, tuple(opt or ()), weights)
    command.predict(source, given, output_dir, threshold=threshold, as_json=json)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A run folder with a report.json.")],
) -> None:
    """Write report.md and report.html from a run folder; print the table."""
    from flyweight.cli import deploy

    deploy.report(folder)


@app.command()
def demo(
    output_dir: OutputDir = Path("output/demo"),
    opt: Overrides = None,
    config: Annotated[str, typer.Option("-c", "--config", help="Another config.")] = "demo_digits",
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget stages done before.")] = False,
) -> None:
    """Train, prune, fine-tune, export, measure and report on built-in data, in minutes."""
    from flyweight.cli import train as command

    command.demo(config, opt or [], output_dir, fresh=fresh)
