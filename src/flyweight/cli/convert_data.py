"""`flyweight convert-data`: a detection set in another layout."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from flyweight.cli import heavy
from flyweight.cli.console import say, show, show_json
from flyweight.cli.options import Json, OutputDir
from flyweight.errors import ConfigError, DataError, nearest
from flyweight.report.text_table import columns
from flyweight.workspace import Workspace

if TYPE_CHECKING:
    from flyweight.data.layouts.image_files import Transfer
    from flyweight.data.records import BoxSet

LAYOUTS = ("voc", "coco", "wider", "yolo")
IMAGES = ("copy", "link", "png")

Root = Annotated[Path, typer.Argument(help="Folder of the detection set.")]
From = Annotated[
    str,
    typer.Option("--from", help="Layout of the set: voc, coco, wider or yolo.", metavar="LAYOUT"),
]
To = Annotated[
    str,
    typer.Option("--to", help="Layout to write: voc, coco, wider or yolo.", metavar="LAYOUT"),
]
Split = Annotated[
    list[str] | None,
    typer.Option(
        "--split",
        help="Split to convert, written as in data.train; may be repeated; default: those of "
        "train, val and test that the set has.",
        metavar="NAME",
    ),
]
Labels = Annotated[
    str,
    typer.Option(
        "--labels",
        help="Class names in order, separated by commas; default: read them from the set.",
        metavar="NAMES",
    ),
]
ImageFolder = Annotated[
    str,
    typer.Option(
        "--images", help="Folder of the images, written as in data.images.", metavar="FOLDER"
    ),
]
ImageFiles = Annotated[
    str,
    typer.Option(
        "--image-files",
        "--pictures",
        help="How image files get into the new set: copy, link (symbolic links) or png (decoded "
        "and written again without loss).",
        metavar="WAY",
    ),
]
LeaveOut = Annotated[
    bool, typer.Option("--leave-out", help="Leave out bad images and boxes instead of stopping.")
]


def convert_data(
    root: Root,
    source: From,
    to: To,
    output_dir: OutputDir = Path("output/data"),
    split: Split = None,
    labels: Labels = "",
    images: ImageFolder = "",
    image_files: ImageFiles = "copy",
    leave_out: LeaveOut = False,
    json: Json = False,
) -> None:
    """Write a detection set in another layout.

    The set is checked first. Information that the new layout cannot represent, such as flags, is
    named.
    """
    names = tuple(name.strip() for name in labels.split(",") if name.strip())
    _require("--from", source, LAYOUTS)
    _require("--to", to, LAYOUTS)
    _require("--image-files", image_files, IMAGES)
    _require_folders(root, output_dir)
    if len(set(names)) != len(names):
        raise ConfigError(
            f"--labels must name every class once. Received {', '.join(names)}. Correct it."
        )
    done: dict[str, Any] = {}
    with Workspace(output_dir).locked():
        for each in split or heavy.usual_splits(root, source):
            box_set = _open_set(root, source, each, labels=names, images=images)
            box_set = _checked(box_set, output_dir / "data_problems.txt", leave_out=leave_out)
            name = split_name(each)
            way = cast("Transfer", image_files)
            found = heavy.convert(box_set, output_dir, to, split=name, image_files=way)
            notes = [*heavy.notes_on(box_set), *found.lost]
            done[name] = {
                "pictures": found.images,
                "boxes": found.boxes,
                "written": found.written,
                "notes": notes,
            }
            for note in notes:
                say(f"{name}: {note}")
    if json:
        show_json(done)
        return
    show(_table(done))
    show(f"wrote {output_dir}")


def split_name(split: str) -> str:
    """Return the name of a split in the new set.

    Example:
        >>> split_name("annotations/instances_train2017.json")
        'train2017'
        >>> split_name("wider_face_split/wider_face_val_bbx_gt.txt"), split_name("trainval")
        ('val', 'trainval')
    """
    stem = Path(split).stem.removeprefix("instances_")
    return stem.removeprefix("wider_face_").removesuffix("_bbx_gt")


def _open_set(
    root: Path, source: str, split: str, *, labels: tuple[str, ...], images: str
) -> "BoxSet":
    config = heavy.DataConfig.model_validate(
        {
            "format": source,
            "root": str(root),
            "labels": labels or None,
            "images": images or None,
        }
    )
    return heavy.read_boxes(config, split)


def _checked(box_set: "BoxSet", list_to: Path, *, leave_out: bool) -> "BoxSet":
    """Return the set without its bad images and boxes, or refuse a set that has some."""
    if leave_out:
        return heavy.leave_out_bad(box_set, list_to=list_to)[0]
    return heavy.require_sound(box_set, list_to=list_to)[0]


def _table(done: Mapping[str, Any]) -> str:
    rows = [("split", "images", "boxes")]
    rows += [(name, f"{row['pictures']:,}", f"{row['boxes']:,}") for name, row in done.items()]
    return columns(rows)


def _require_folders(root: Path, output_dir: Path) -> None:
    if output_dir.resolve() == root.resolve():
        raise ConfigError(
            f"A converted set must go into another folder. Received '{output_dir}' for both. "
            "Give another --output-dir."
        )
    if not root.is_dir():
        raise DataError(
            f"A set must be a folder. Received '{root}', which is none. Check the path."
        )


def _require(option: str, given: str, known: Sequence[str]) -> None:
    if given not in known:
        raise ConfigError(
            f"{option} must be one of {', '.join(known)}. Received '{given}'. "
            f"{nearest(given, known)}"
        )
