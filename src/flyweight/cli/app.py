"""Every command with its options. Bodies load on use, so that `--help` answers at once."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from flyweight.cli.options import (
    ConfigName,
    Criterion,
    Json,
    MaxDrop,
    OutputDir,
    Overrides,
    PrunedParams,
    PrunedRatios,
    Weights,
)

app = typer.Typer(
    name="flyweight",
    help="Make trained vision models small and fast under a budget, and prove it.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
    """List models and built-in configs."""
    from flyweight.cli import inspect

    inspect.models(as_json=json)


@app.command()
def params(
    config: ConfigName,
    opt: Overrides = None,
    weights: Weights = "",
    whole: Annotated[bool, typer.Option("--all", help="Fold no long list.")] = False,
    json: Json = False,
) -> None:
    """List layers that can be pruned, and why not.

    Each group of channels that only go together is a tree: who makes them, who reads them.
    """
    from flyweight.cli import inspect

    inspect.params(config, opt or [], weights, whole=whole, as_json=json)


@app.command()
def train(
    config: ConfigName,
    opt: Overrides = None,
    resume: Annotated[
        bool, typer.Option("-r", "--resume", help="Go on where a run was cut off.")
    ] = False,
    json: Json = False,
) -> None:
    """Train; save best and last checkpoint."""
    from flyweight.cli import train as command

    command.train(config, opt or [], resume=resume, as_json=json)


@app.command("eval")
def evaluate(
    config: ConfigName,
    opt: Overrides = None,
    weights: Weights = "",
    pruned_params: PrunedParams = "",
    pruned_ratios: PrunedRatios = "",
    multi_scale: Annotated[
        bool,
        typer.Option(
            "--multi-scale", "--multi_scale", help="The same as -o detect.test=multi_scale."
        ),
    ] = False,
    output_eval: Annotated[
        Path | None,
        typer.Option(
            "-f",
            "--output-eval",
            "--output_eval",
            help="For detections as WIDER FACE's tools read them.",
            metavar="FOLDER",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Print the metrics of a checkpoint.

    A pruned checkpoint knows how it was pruned: ratios need not be repeated.
    """
    from flyweight.cli import train as command
    from flyweight.cli.ratios import Ratios

    ratios = Ratios(pruned_params, pruned_ratios)
    told = [*(opt or []), *(["detect.test=multi_scale"] if multi_scale else [])]
    command.evaluate(config, told, weights, ratios=ratios, save_to=output_eval, as_json=json)


@app.command()
def sensitivity(
    config: Annotated[
        str, typer.Option("-c", "--config", help="A built-in name or a file.", metavar="CONFIG")
    ] = "",
    opt: Overrides = None,
    weights: Weights = "",
    file: Annotated[
        Path,
        typer.Option(
            "-s",
            "--sensitivities",
            "--sensitivities_file",
            help="For the curves; a scan that was cut off goes on.",
            metavar="FILE",
        ),
    ] = Path("sensitivities.json"),
    pruned_params: PrunedParams = "",
    pruned_ratios: Annotated[
        str,
        typer.Option(
            "-r",
            "--pruned-ratios",
            "--pruned_ratios",
            help="Shares of channels to try on every layer.",
            metavar="NUMBERS",
        ),
    ] = "0.1 0.2 0.3 0.4 0.5 0.6 0.7 0.8 0.9",
    criterion: Criterion = "",
    mode: Annotated[
        str, typer.Option("--mode", help="exact, or fast: few images, with intervals.")
    ] = "exact",
    max_drop: MaxDrop = 0.05,
    pictures: Annotated[
        Path | None,
        typer.Option("--pictures", help="A folder without labels to scan on; weaker."),
    ] = None,
    ray: Annotated[
        str, typer.Option("--ray", help="A Ray cluster to scan on.", metavar="ADDRESS")
    ] = "",
    merge: Annotated[
        list[Path] | None,
        typer.Option("--merge", help="Files to put into one, instead of scanning.", metavar="FILE"),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot", help="For the image; else beside the curves, as .png.", metavar="FILE"
        ),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            "--page",
            help="For the plan explorer; else beside the curves, as .html.",
            metavar="FILE",
        ),
    ] = None,
    latency_table: Annotated[
        Path | None,
        typer.Option("--latency-table", help="Of bench --layers: limits latency on the page, too."),
    ] = None,
    no_plot: Annotated[
        bool, typer.Option("--no-plot", help="Neither image nor page, unless named.")
    ] = False,
    json: Json = False,
) -> None:
    """Measure what channels are worth, in one pass over data.

    The curves are drawn, and a page beside them turns limits into plans. Make plans of them with:
    prune --sensitivities FILE --max-drop 0.05.
    """
    from flyweight.cli import sensitivity as command
    from flyweight.errors import ConfigError

    words = (config, tuple(opt or ()), weights, pruned_params, pruned_ratios, criterion)
    request = command.Request(*words, command.How(mode, max_drop, pictures, ray))
    files = command.Files.beside(file, plot, page, plain=no_plot)
    files = replace(files, latency_table=latency_table)
    if merge:
        command.merge(merge, request, files, as_json=json)
        return
    if not config:
        raise ConfigError("A scan must have a config. Received none. Add: -c CONFIG")
    command.scan(request, files, as_json=json)


@app.command()
def prune(
    config: ConfigName,
    opt: Overrides = None,
    pruned_params: PrunedParams = "",
    pruned_ratios: PrunedRatios = "",
    sensitivities: Annotated[
        str,
        typer.Option(
            "--sensitivities",
            "--sensitivities_file",
            help="Ratios from the curves of a scan.",
            metavar="FILE",
        ),
    ] = "",
    max_drop: MaxDrop = 0.05,
    budget: Annotated[
        str,
        typer.Option(
            "--budget",
            help="Instead: macs=, params=, size_bytes=, latency_ms= or latency_share=.",
        ),
    ] = "",
    latency_table: Annotated[
        str,
        typer.Option(
            "--latency-table", help="Of bench --layers, for a latency budget.", metavar="FILE"
        ),
    ] = "",
    criterion: Criterion = "",
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
    repair: Annotated[
        bool | None,
        typer.Option(
            "--repair/--no-repair", help="Refit what is left before training, without labels."
        ),
    ] = None,
    finetune: Annotated[
        bool, typer.Option("--finetune/--no-finetune", help="Train after the cut.")
    ] = True,
    resume: Annotated[
        bool, typer.Option("-r", "--resume", help="Go on where a run was cut off.")
    ] = False,
    json: Json = False,
) -> None:
    """Cut channels at given ratios; fine-tune.

    The checkpoint that is saved knows how it was pruned: ratios are not needed again.
    """
    from flyweight.cli import inspect
    from flyweight.cli import prune as command
    from flyweight.cli.ratios import Ratios

    if print_params:
        inspect.print_params(config, opt or [])
        return
    ratios = Ratios(pruned_params, pruned_ratios, sensitivities, max_drop, budget, latency_table)
    request = command.Request(config, tuple(opt or ()), ratios, criterion)
    if dry_run:
        command.dry_run(request, flops_convention, as_json=json)
    else:
        options = command.Options(evaluate_first, repair, finetune, resume, json)
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
        str,
        typer.Option("--end", help="detections (NMS inside), decoded, or raw; else the first."),
    ] = "",
    json: Json = False,
) -> None:
    """Write a checkpoint as ONNX.

    The file is compared with PyTorch before it gets its name; its description lies beside it.
    """
    from flyweight.cli import deploy
    from flyweight.cli.ratios import Ratios

    source = deploy.Source(config, tuple(opt or ()), weights)
    ratios = Ratios(pruned_params, pruned_ratios)
    deploy.export(source, ratios, output_dir, end=end, as_json=json)


@app.command()
def bench(
    files: Annotated[list[Path] | None, typer.Argument(help="ONNX files.")] = None,
    threads: Annotated[
        str, typer.Option("--threads", help="Thread counts; 1,2 for files, 1 for layers.")
    ] = "",
    seconds: Annotated[
        float, typer.Option("--seconds", help="Time for each file at each thread count.")
    ] = 5.0,
    runs: Annotated[int, typer.Option("--runs", help="Timed inferences wanted for each.")] = 100,
    shape: Annotated[
        list[str] | None,
        typer.Option("--shape", help="For inputs without static sizes: images=1x3x320x320."),
    ] = None,
    layers: Annotated[
        bool,
        typer.Option("--layers", help="Time the layers of -c CONFIG instead, at many widths."),
    ] = False,
    config: Annotated[
        str, typer.Option("-c", "--config", help="The network of --layers.", metavar="CONFIG")
    ] = "",
    opt: Overrides = None,
    save: Annotated[
        Path, typer.Option("--save", help="For the table of --layers.", metavar="FILE")
    ] = Path("layers.json"),
    json: Json = False,
) -> None:
    """Measure latency, memory and size.

    Each file runs in a process of its own; the processes take turns. With --layers: the table that
    latency budgets need.
    """
    from flyweight.cli import deploy
    from flyweight.errors import ConfigError

    if not layers:
        if not files:
            raise ConfigError(
                "There must be something to measure. Received no files. Name ONNX files, or time a "
                "network's layers with: --layers -c CONFIG"
            )
        protocol = deploy.Protocol(seconds, runs, tuple(shape or ()))
        deploy.bench(files, threads or "1,2", protocol, as_json=json)
        return
    from flyweight.cli import layers as command

    count = deploy.one_count(threads or "1")
    command.layers(command.Request(config, tuple(opt or ()), count, seconds), save, as_json=json)


@app.command()
def predict(
    pictures: Annotated[
        list[Path] | None, typer.Argument(help="Images or folders of images.")
    ] = None,
    config: Annotated[
        str, typer.Option("-c", "--config", help="Where weights lie; optional.")
    ] = "",
    opt: Overrides = None,
    weights: Weights = "",
    infer_img: Annotated[
        Path | None, typer.Option("--infer-img", "--infer_img", help="One image.")
    ] = None,
    infer_dir: Annotated[
        Path | None, typer.Option("--infer-dir", "--infer_dir", help="A folder of images.")
    ] = None,
    output_dir: OutputDir = Path("output"),
    threshold: Annotated[
        float, typer.Option("--draw-threshold", "--draw_threshold", help="Lowest score drawn.")
    ] = 0.5,
    json: Json = False,
) -> None:
    """Draw what a model finds on images.

    The model is a checkpoint or an exported .onnx; a detector's must end in detections.
    """
    from flyweight.cli import predict as command
    from flyweight.cli.deploy import Source

    given = [*(pictures or []), *(path for path in (infer_img, infer_dir) if path is not None)]
    source = Source(config, tuple(opt or ()), weights)
    command.predict(source, given, output_dir, threshold=threshold, as_json=json)


@app.command("convert-data")
def convert_data(
    root: Annotated[Path, typer.Argument(help="Folder of a detection set.")],
    source: Annotated[str, typer.Option("--from", help="Its layout: voc, coco, wider or yolo.")],
    to: Annotated[str, typer.Option("--to", help="The layout to write: one of the same.")],
    output_dir: OutputDir = Path("output/data"),
    split: Annotated[
        list[str] | None,
        typer.Option("--split", help="As data.train says it; by default train and val."),
    ] = None,
    labels: Annotated[
        str, typer.Option("--labels", help="Class names, comma between.", metavar="NAMES")
    ] = "",
    images: Annotated[
        str, typer.Option("--images", help="As data.images says it.", metavar="FOLDER")
    ] = "",
    pictures: Annotated[
        str, typer.Option("--pictures", help="copy, link, or png: written again without loss.")
    ] = "copy",
    leave_out: Annotated[
        bool, typer.Option("--leave-out", help="Go on without bad images and boxes.")
    ] = False,
    json: Json = False,
) -> None:
    """Write a detection set in another layout.

    The set is checked first. What the new layout cannot say, such as flags, is named.
    """
    from flyweight.cli import convert as command

    names = tuple(name.strip() for name in labels.split(",") if name.strip())
    wish = command.Wish(root, source, to, tuple(split or ()), names, images, pictures, leave_out)
    command.convert_data(wish, output_dir, as_json=json)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A run folder with a report.json.")],
    json: Json = False,
) -> None:
    """Write and print a run's report again.

    A file sens*.json in the folder, of the dense network's scan, is shown in it.
    """
    from flyweight.cli import deploy

    deploy.report(folder, as_json=json)


@app.command()
def demo(
    output_dir: OutputDir = Path("output/demo"),
    opt: Overrides = None,
    config: Annotated[str, typer.Option("-c", "--config", help="Another config.")] = "demo_digits",
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget stages done before.")] = False,
    json: Json = False,
) -> None:
    """Run the whole chain in minutes.

    Train, prune, fine-tune, export, measure and report, on built-in data. Stages that were
    finished before are not done again.
    """
    from flyweight.cli import train as command

    command.demo(config, opt or [], output_dir, fresh=fresh, as_json=json)
