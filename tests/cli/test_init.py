import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

SETS = (
    *("cls_clothing10", "cls_imagenet_sample1000", "det_bccd", "det_cards", "det_deeppcb"),
    *("face_mask853", "seg_camvid11", "seg_nuclei_dsb2018", "seg_vessel_chase"),
)


@pytest.fixture
def pets(tmp_path):
    for name in ("cat", "dog"):
        for number in range(5):
            path = tmp_path / "pets" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            values = np.random.default_rng([ord(name[0]), number]).integers(0, 255, (40, 50, 3))
            Image.fromarray(values.astype(np.uint8)).save(path)
    return tmp_path / "pets"


def test_what_it_prints(flyweight, pets):
    answer = flyweight("init", pets)
    lines = answer.out.splitlines()
    assert lines[0] == "layout       class_list"
    assert "classes      2: cat 4, dog 4" in lines
    assert "image sizes  40 x 50 (height x width)" in lines
    assert "problems     none" in lines
    assert lines[-1].endswith("flyweight train -c pets.yaml")
    assert (answer.status, answer.err) == (0, "")


def test_json(flyweight, pets, tmp_path):
    found = flyweight("init", pets, "-O", "a/b.yaml", "--json").json
    assert found["config"] == "a/b.yaml"
    assert (tmp_path / "a" / "b.yaml").is_file()
    assert found["train"] == {"images": 8, "classes": {"cat": 4, "dog": 4}, "median_size": [40, 50]}
    assert (found["labels"], found["solved"], found["problems"]) == (["cat", "dog"], True, [])


def test_a_new_config_trains(flyweight, pets):
    assert flyweight("init", pets).status == 0
    small = ("input_size=32", "train.steps=2", "train.batch_size=2", "train.warmup_steps=0")
    answer = flyweight(
        *("train", "-c", "pets.yaml", "-o", *small, "model=timm/test_resnet", "train.num_workers=0")
    )
    assert answer.status == 0, answer.err
    assert "saved output/pets/best_model.safetensors" in answer.out


def test_mistakes(flyweight, pets, tmp_path):
    assert "must be a folder" in flyweight("init", tmp_path / "none").mistake
    assert "which is a file" in flyweight("init", pets / "cat" / "0.png").mistake
    assert "a layout that flyweight reads" in flyweight("init", pets / "cat").mistake
    assert "ends in .yaml" in flyweight("init", pets, "-O", "x.txt").mistake
    (tmp_path / "pets.yaml").write_text("mine")
    assert "must not replace another" in flyweight("init", pets).mistake
    assert (tmp_path / "pets.yaml").read_text() == "mine"
    assert flyweight("init", pets, "--overwrite").status == 0


def test_a_wrong_path_is_refused_before_torch_loads():
    code = (
        "import sys; from flyweight.cli.main import run; "
        "print(run(['init', 'no/such/folder']), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "2 False\n"


@pytest.mark.data
@pytest.mark.parametrize("name", SETS)
def test_every_real_set(flyweight, data_root, name):
    found = flyweight("init", data_root / name, "--json").json
    assert found["solved"]


@pytest.mark.data
def test_a_real_folder_without_images(flyweight, data_root):
    assert "with 0 images" in flyweight("init", data_root / "face_wider_val_gt").mistake
