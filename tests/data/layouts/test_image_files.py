import numpy as np
import pytest
from PIL import Image

from flyweight.data.images import read_image
from flyweight.data.layouts.image_files import place_images, size_of
from flyweight.errors import DataError, FileError


@pytest.fixture
def paths(tmp_path):
    found = [tmp_path / "from" / name for name in ("one/a.jpg", "two/a.jpg", "one/b.png")]
    for value, path in enumerate(found):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 24), (80 * value, 0, 0)).save(path)
    return found


def _rows(paths):
    return [[[1, 2, 11, 12]]] * len(paths)


def test_files_are_copied_under_their_names(tmp_path, tiny_set, paths):
    made = tiny_set(boxes=_rows(paths), paths=paths)
    placed = place_images(made, tmp_path / "to", "val")
    assert [path.name for path in placed] == ["a.jpg", "val_a.jpg", "b.png"]
    assert [path.read_bytes() for path in placed] == [path.read_bytes() for path in paths]
    # Once more changes nothing, and the images of another split get other names.
    assert place_images(made, tmp_path / "to", "val") == placed
    other = tiny_set(boxes=_rows(paths[1:]), paths=paths[1:])
    names = [path.name for path in place_images(other, tmp_path / "to", "train")]
    assert names == ["train_a.jpg", "b.png"]


def test_annotations_named_after_pictures_need_other_stems(tmp_path, tiny_set, paths):
    twin = paths[0].with_suffix(".png")
    Image.new("RGB", (32, 24)).save(twin)
    made = tiny_set(boxes=_rows("ab"), paths=[paths[0], twin])
    placed = place_images(made, tmp_path / "to", "val", by_stem=True)
    assert [path.name for path in placed] == ["a.jpg", "val_a.png"]


def test_files_can_be_linked_or_written_again(tmp_path, tiny_set, paths):
    made = tiny_set(boxes=_rows(paths), paths=paths)
    mode = paths[0].stat().st_mode
    for linked in (place_images(made, tmp_path / "links", "val", "link") for _ in range(2)):
        assert all(path.is_symlink() for path in linked)
        assert [path.resolve() for path in linked] == [path.resolve() for path in paths]
    assert paths[0].stat().st_mode == mode
    again = place_images(made, tmp_path / "png", "val", "png")
    assert [path.suffix for path in again] == [".png"] * 3
    assert bool((read_image(again[0]) == read_image(paths[0])).all())
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="must be free for a link"):
        place_images(made, tmp_path / "file", "val", "link")


def test_the_folder_they_are_in_will_do(tiny_set, paths):
    before = paths[0].read_bytes()
    made = tiny_set(boxes=_rows(paths[:1]), paths=paths[:1])
    assert place_images(made, paths[0].parent, "val") == (paths[0],)
    assert paths[0].read_bytes() == before


def test_sizes_are_upright(tmp_path, tiny_set):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a.jpg"
    Image.new("RGB", (32, 24)).save(path, exif=exif)
    assert size_of(tiny_set(boxes=_rows("a"), paths=[path]), 0) == (32, 24)
    assert size_of(tiny_set(), 1) == (24, 32)


def test_made_up_pictures_become_png(tmp_path, tiny_set):
    placed = place_images(tiny_set(), tmp_path, "train")
    assert [path.name for path in placed] == ["train_00000.png", "train_00001.png"]
    np.testing.assert_array_equal(np.asarray(Image.open(placed[1])), tiny_set().image(1))


def test_missing_pictures_are_named(tmp_path, tiny_set):
    gone = tiny_set(boxes=_rows("a"), paths=[tmp_path / "gone.jpg"])
    with pytest.raises(DataError, match=r"Received '.*gone\.jpg', which is none"):
        place_images(gone, tmp_path / "to", "val")
    with pytest.raises(DataError, match=r"must be a readable file\. Received '.*gone\.jpg'"):
        size_of(gone, 0)


def test_links_of_an_earlier_conversion_are_replaced_not_written_through(tmp_path, tiny_set, paths):
    made = tiny_set(boxes=_rows(paths[2:]), paths=paths[2:])
    before = paths[2].read_bytes()
    for transfer in ("png", "copy"):
        (linked,) = place_images(made, tmp_path / transfer, "val", "link")
        assert linked.is_symlink()
        (placed,) = place_images(made, tmp_path / transfer, "val", transfer)
        assert placed == linked
        assert not placed.is_symlink()
        placed.write_bytes(b"changed")
        assert paths[2].read_bytes() == before
