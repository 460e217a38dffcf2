import base64
from pathlib import Path

import pytest
from PIL import Image

from flyweight.errors import FileError
from flyweight.report.embedded_images import embed
from flyweight.report.rows import ReportImage


def image(path: str) -> ReportImage:
    return ReportImage(title="cells", stage="dense", path=path)


def test_bytes_are_embedded_unchanged(run_folder: Path) -> None:
    for path, media_type in (("pictures/a.png", "image/png"), ("pictures/b.jpg", "image/jpeg")):
        found = embed(image(path), run_folder)
        head, data = found.uri.split(",")
        assert head == f"data:{media_type};base64"
        assert base64.b64decode(data) == (run_folder / path).read_bytes()
        assert (found.width, found.height) == (40, 30)


def test_a_path_may_not_leave_the_run_folder(run_folder: Path) -> None:
    inner = run_folder / "inner"
    inner.mkdir()
    (inner / "link.png").symlink_to(run_folder / "pictures" / "a.png")
    outside = run_folder / "pictures" / "a.png"
    for path in ("../pictures/a.png", str(outside), "link.png"):
        with pytest.raises(FileError, match="must be in its run folder"):
            embed(image(path), inner)


def test_only_readable_png_and_jpeg(run_folder: Path) -> None:
    Image.new("RGB", (4, 4)).save(run_folder / "c.gif")
    (run_folder / "d.png").write_text("<svg/>")
    for path in ("c.gif", "d.png", "missing.png", "pictures"):
        with pytest.raises(FileError, match="readable PNG or JPEG") as caught:
            embed(image(path), run_folder)
        assert "\n" not in str(caught.value)
