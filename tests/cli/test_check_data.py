import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def folders(tmp_path):
    """Write a config for a classification set of two classes."""
    generator = np.random.default_rng(0)
    for name in ("train/cat/a", "train/cat/b", "train/dog/c", "val/cat/d", "val/dog/e"):
        path = tmp_path / f"set/{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(path)
    (tmp_path / "pets.yaml").write_text(
        "model: timm/mobilenetv2_100\nnum_classes: 2\ninput_size: 32\ntrain: {steps: 1}\n"
        "data: {format: imagefolder, root: set}\n"
    )
    return tmp_path / "set"


def test_a_sound_set(flyweight, folders, tmp_path):
    answer = flyweight("check-data", "-c", "pets.yaml")
    assert answer.status == 0
    assert answer.out.splitlines() == [
        "        train  val",
        "images      3    2",
        "  cat       2    1",
        "  dog       1    1",
        "",
        "no problems",
        "wrote 'output/pets/contact_sheet.png'",
    ]
    with Image.open(tmp_path / "output/pets/contact_sheet.png") as sheet:
        assert sheet.format == "PNG"
    assert flyweight("check-data", "-c", "pets.yaml", "--json").json == {"problems": []}


def test_problems_that_stop_and_others(flyweight, folders, tmp_path):
    (folders / "val/dog/e.png").unlink()
    answer = flyweight("check-data", "-c", "pets.yaml")
    assert answer.status == 0
    assert "does not stop training:\n  unused_class (1): a class that does not occur" in answer.out
    (folders / "train/dog/c.png").write_bytes(b"no image")
    answer = flyweight("check-data", "-c", "pets.yaml", "--json")
    assert answer.status == 2
    assert list(answer.json) == ["problems"]
    first, second = answer.json["problems"]
    assert set(first) == {"kind", "count", "remedy", "examples"}
    assert (first["kind"], first["count"], second["kind"]) == (
        "undecodable_image",
        1,
        "unused_class",
    )
    assert first["examples"][0].startswith("set/train/dog/c.png: an image must decode")
    (error,) = (line for line in answer.err.splitlines() if line.startswith("error: "))
    assert "Received 1 problem: undecodable_image (1). First: set/train/dog/c.png" in error
    listing = tmp_path / "output/pets/data_problems.txt"
    assert len(listing.read_text().splitlines()) == 2
    for name in ("train/dog/c.png", "val/dog/e.png"):
        shade = 40 if name.startswith("train") else 50
        Image.new("RGB", (8, 8), (shade, 0, 0)).save(folders / name)
    assert flyweight("check-data", "-c", "pets.yaml").status == 0
    assert not listing.exists()


def test_overrides_and_data_that_cannot_be_read(flyweight, folders):
    answer = flyweight("check-data", "-c", "pets.yaml", "-o", "data.root=nowhere", "--json")
    assert answer.status == 2
    (kind,) = answer.json["problems"]
    assert (kind["kind"], kind["count"]) == ("unreadable_split", 2)
    assert "wrote 'output/pets/data_problems.txt'" in answer.err


def test_an_image_in_another_format_takes_decoding(flyweight, folders):
    with Image.open(folders / "train/cat/a.png") as image:
        image.save(folders / "val/cat/copy.bmp")
    assert flyweight("check-data", "-c", "pets.yaml", "--json").json == {"problems": []}
    (kind,) = flyweight("check-data", "-c", "pets.yaml", "--json", "--decode").json["problems"]
    assert kind["kind"] == "copied_image"
