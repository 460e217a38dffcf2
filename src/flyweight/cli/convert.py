"""`convert-data`: a detection set from one layout into another."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from flyweight.cli.console import columns, say, show, show_json
from flyweight.errors import ConfigError, DataError, nearest

LAYOUTS = ("voc", "coco", "wider", "yolo")
IMAGES = ("copy", "link", "png")


@dataclass(frozen=True)
class Wish:
    """What the command line says.

    Attributes:
        root: Folder of the set.
        source: Its layout.
        to: The layout to write.
        splits: As the layout calls them; none means train and val.
        labels: Class names; none reads them from the set.
        images: Folder of the images, see `DataConfig.images`; may be empty.
        pictures: How images get there, see `place_images`.
        leave_out: Go on without bad images and boxes.
    """

    root: Path
    source: str
    to: str
    splits: tuple[str, ...]
    labels: tuple[str, ...]
    images: str
    pictures: str
    leave_out: bool


def convert_data(wish: Wish, output_dir: Path, *, as_json: bool) -> None:
    """Write every split of a set in another layout and say what that costs."""
    _require("--from", wish.source, LAYOUTS)
    _require("--to", wish.to, LAYOUTS)
    _require("--pictures", wish.pictures, IMAGES)
    if output_dir.resolve() == wish.root.resolve():
        raise ConfigError(
            f"A converted set must go into another folder. Received '{output_dir}' for both. "
            "Give another --output-dir."
        )
    if len(set(wish.labels)) != len(wish.labels):
        raise ConfigError(
            f"--labels must name every class once. Received {', '.join(wish.labels)}. Correct it."
        )
    if not wish.root.is_dir():
        raise DataError(
            f"A set must be a folder. Received '{wish.root}', which is none. Check the path."
        )

    from flyweight.data.check import require_sound
    from flyweight.data.layouts.convert import convert
    from flyweight.data.layouts.image_files import How
    from flyweight.data.usable import leave_out_bad, left_out

    done: dict[str, Any] = {}
    for split in wish.splits or _usual_splits(wish.source):
        box_set = _open(wish, split)
        list_to = output_dir / "data_problems.txt"
        if wish.leave_out:
            box_set, _ = leave_out_bad(box_set, list_to=list_to)
        else:
            require_sound(box_set, list_to=list_to)
        name = split_name(split)
        how = cast("How", wish.pictures)
        found = convert(box_set, output_dir, wish.to, split=name, pictures=how)
        notes = [*filter(None, [left_out(box_set)]), *found.lost]
        done[name] = {
            "pictures": found.pictures,
            "boxes": found.boxes,
            "written": found.written,
            "notes": notes,
        }
        for note in notes:
            say(f"{name}: {note}")
    if as_json:
        show_json(done)
        return
    rows = [("split", "images", "boxes")]
    rows += [(name, f"{row['pictures']:,}", f"{row['boxes']:,}") for name, row in done.items()]
    show(columns(rows))
    show(f"wrote {output_dir}")


def split_name(split: str) -> str:
    """Return what a split is called in the new set.

    Example:
        >>> split_name("annotations/instances_train2017.json")
        'train2017'
        >>> split_name("wider_face_split/wider_face_val_bbx_gt.txt"), split_name("trainval")
        ('val', 'trainval')
    """
    stem = Path(split).stem.removeprefix("instances_")
    return stem.removeprefix("wider_face_").removesuffix("_bbx_gt")


def _usual_splits(source: str) -> Sequence[str]:
    if source == "coco":
        return ("annotations/instances_train.json", "annotations/instances_val.json")
    return ("train", "val")


def _open(wish: Wish, split: str) -> Any:
    from flyweight.config.data import DataConfig
    from flyweight.data.layouts.box_readers import read_boxes

    config = DataConfig.model_validate(
        {
            "format": wish.source,
            "root": str(wish.root),
            "labels": wish.labels or None,
            "images": wish.images or None,
        }
    )
    return read_boxes(config, split)


def _require(option: str, given: str, known: Sequence[str]) -> None:
    if given not in known:
        raise ConfigError(
            f"{option} must be one of {', '.join(known)}. Received '{given}'. "
            f"{nearest(given, known)}"
        )
