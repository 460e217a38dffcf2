"""`flyweight init`: a config for a folder of images."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flyweight import pipeline
from flyweight.cli.console import show, show_json
from flyweight.cli.options import Json
from flyweight.errors import counted
from flyweight.pipeline.preflight import starter_path

if TYPE_CHECKING:
    from flyweight.data.survey import Survey
    from flyweight.pipeline.starter import Started

_SHOWN_CLASSES = 8

Data = Annotated[Path, typer.Argument(help="Folder of the data set.")]
Output = Annotated[
    Path | None,
    typer.Option(
        "-O",
        "--output",
        help="File of the config; default: NAME.yaml here, after the folder's name.",
        metavar="FILE",
    ),
]
Layout = Annotated[
    str,
    typer.Option(
        "--layout",
        help="Layout to use where the folder has several, such as voc or coco.",
        metavar="NAME",
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace files that exist under the new names.")
]


def init(
    data: Data,
    output: Output = None,
    layout: Layout = "",
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Write a config for a folder of images.

    The layout is recognised, images and annotations are checked, and a network, its input and its
    training are proposed. The config trains as it is.
    """
    starter_path(data, output, overwrite=overwrite)
    started = pipeline.start_config(data, output, layout=layout, overwrite=overwrite)
    if json:
        show_json(_record(started))
        return
    show("\n".join(f"{name:<11}  {text}" for name, text in _rows(started)))
    show("wrote " + ", ".join(map(str, started.files)))
    path = started.files[-1]
    config = shlex.quote(str(path))
    show(f"next: flyweight check-data -c {config}, then: flyweight train -c {config}")


def _rows(started: "Started") -> list[tuple[str, str]]:
    train, val, proposal = started.train, started.val, started.proposal
    layout = started.layout
    if started.other_layouts:
        layout += f" (also {', '.join(started.other_layouts)}: choose with --layout)"
    splits = f"{counted(train.images, 'image')} to train, {val.images:,} to validate"
    if started.others:
        splits += f" (not used: {', '.join(started.others)})"
    rows = [("layout", layout), ("splits", splits), ("classes", _classes(train))]
    rows.append(("image sizes", _sizes(train)))
    if train.object_share is not None:
        rows.append(("objects", f"median side {train.object_share:.1%} of the image's"))
    rows += _problem_rows(started)
    rows += [("note", note) for note in started.notes]
    size = proposal.input_size
    shown = f"{size[0]} x {size[1]}" if isinstance(size, tuple) else f"{size} x {size}"
    rows.append(("network", f"{proposal.model}, input {shown} (height x width)"))
    training = f"{proposal.steps:,} steps of {counted(proposal.batch_size, 'image')}"
    rows.append(("training", f"{training}: {proposal.epochs:.0f} epochs"))
    return rows


def _classes(train: "Survey") -> str:
    names = [f"{name} {train.counts[name]:,}" if train.counts else name for name in train.labels]
    more = f" and {len(names) - _SHOWN_CLASSES} more" if len(names) > _SHOWN_CLASSES else ""
    return f"{len(names):,}: {', '.join(names[:_SHOWN_CLASSES])}{more}"


def _sizes(train: "Survey") -> str:
    heights, widths = zip(*train.sizes, strict=True)
    height, width = train.median_size
    if len({*train.sizes}) == 1:
        return f"{height} x {width} (height x width)"
    return (
        f"median {height} x {width} (height x width), heights {min(heights)} to {max(heights)}, "
        f"widths {min(widths)} to {max(widths)}"
    )


def _problem_rows(started: "Started") -> list[tuple[str, str]]:
    problems = started.problems
    if not problems:
        return [("problems", "none")]
    stopping = sum(problem.stops for problem in problems)
    what = "correct them before training"
    if started.solved:
        what = "the config leaves out what is wrong" if stopping else "training can start"
    rows = [("problems", f"{len(problems):,}: {what}; flyweight check-data lists them")]
    rows += [
        ("", f"{found.count:,} x {found.kind}, such as {found.examples[0]}")
        for found in started.kinds
    ]
    return rows


def _record(started: "Started") -> dict[str, object]:
    proposal = started.proposal
    splits = {
        name: {"images": found.images, "classes": found.counts, "median_size": found.median_size}
        for name, found in (("train", started.train), ("val", started.val))
    }
    return {
        "config": started.files[-1],
        "files": list(started.files),
        "layout": started.layout,
        "other_layouts": list(started.other_layouts),
        "labels": list(started.train.labels),
        **splits,
        "problems": [str(problem) for problem in started.problems],
        "solved": started.solved,
        "notes": list(started.notes),
        "model": proposal.model,
        "input_size": proposal.input_size,
        "steps": proposal.steps,
        "batch_size": proposal.batch_size,
    }
