from pathlib import Path

import pytest

from flyweight.cli.image_paths import images_of, targets_of
from flyweight.errors import ConfigError, DataError


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.png", "a.JPG", "notes.txt", "deep/c.png"):
        path = Path("shots", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    Path("empty").mkdir()
    return tmp_path


def test_pictures_of_files_and_folders(here):
    folder, single = Path("shots"), Path("shots/b.png")
    assert images_of([single, folder]) == [single, folder / "a.JPG"]
    # A file is taken at its word; whether it is an image shows when it is read.
    assert images_of([folder / "notes.txt"]) == [folder / "notes.txt"]


@pytest.mark.parametrize(
    ("given", "said"), [([], "none"), (["nope"], "'nope'"), (["empty"], "'empty' without any")]
)
def test_no_pictures(here, given, said):
    with pytest.raises(DataError, match=f"Received {said}"):
        images_of([Path(name) for name in given])


def test_pictures_of_one_name_are_drawn_apart(here):
    given = [Path("shots/b.png"), Path("other/b.jpg"), Path("shots/a.JPG")]
    assert list(targets_of(given, Path("out")).values()) == [
        Path("out/b.png"),
        Path("out/b_2.png"),
        Path("out/a.png"),
    ]
    with pytest.raises(ConfigError, match="must not replace an image"):
        targets_of(given, Path("shots"))
