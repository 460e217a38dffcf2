import copy
import pickle

import pytest
import torch
from torch import nn

from flyweight.distillation.teacher_cache import OutputCache, digest_of_image, identity_of

IMAGES = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))


class Counting:
    """A teacher that notes how many images it ran on."""

    def __init__(self):
        self.ran = []

    def __call__(self, images):
        self.ran.append(len(images))
        half = images.mean(dim=(2, 3)).to(torch.bfloat16)
        return {"output/output": 2 * images.flatten(1), "feature/deep": half}


@pytest.fixture
def cache(tmp_path):
    return lambda limit=10**6: OutputCache(tmp_path / "kept", limit)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_teacher_runs_once_on_an_image_in_any_batch_and_process(cache):
    run, kept = Counting(), cache()
    wanted = Counting()(IMAGES)
    assert same(kept.results("a", IMAGES[:4], run), {n: v[:4] for n, v in wanted.items()})
    mixed = [5, 0, 4, 3]
    assert same(kept.results("a", IMAGES[mixed], run), {n: v[mixed] for n, v in wanted.items()})
    assert run.ran == [4, 2]
    for again in (cache(), copy.deepcopy(kept), pickle.loads(pickle.dumps(kept))):
        assert same(
            again.results("a", IMAGES.flip(0), run), {n: v.flip(0) for n, v in wanted.items()}
        )
    assert run.ran == [4, 2]
    kept.results("b", IMAGES, run)  # Another teacher.
    kept.results("a", IMAGES + 1e-6, run)  # Other pixels.
    assert run.ran == [4, 2, 6, 6]


@pytest.mark.parametrize("left", [0, 4, -7, None])
def test_what_is_damaged_is_computed_again(cache, tmp_path, left):
    run = Counting()
    wanted = cache().results("a", IMAGES, run)
    (path,) = (tmp_path / "kept" / "a").iterdir()
    whole = bytearray(path.read_bytes())
    whole[-1] ^= left is None
    path.write_bytes(whole[:left])
    assert same(cache().results("a", IMAGES, run), wanted)
    # One byte is of one image: only this one is computed again.
    assert run.ran == [6, 1 if left is None else 6]
    assert same(cache().results("a", IMAGES, run), wanted)
    assert len(run.ran) == 2


def test_a_file_that_is_removed_meanwhile_is_computed_again(cache, tmp_path):
    run, kept = Counting(), cache()
    wanted = kept.results("a", IMAGES, run)
    next((tmp_path / "kept" / "a").iterdir()).unlink()
    assert same(kept.results("a", IMAGES, run), wanted)
    assert run.ran == [6, 6]


def test_the_folder_stays_below_its_limit(cache, tmp_path):
    run, kept = Counting(), cache(2400)
    for _ in range(2):
        kept.results("a", IMAGES[:3], run)
        kept.results("b", IMAGES, run)
    assert run.ran == [3, 6, 6]  # The second teacher's results do not fit.
    cache(2400).results("b", IMAGES, run)
    assert len(run.ran) == 4
    files = [path for path in (tmp_path / "kept").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 2400


def test_the_size_is_stated_before():
    fixed = OutputCache("kept", 5 * 10**9, inputs=1200, repeats=True)
    assert fixed.plan(93_000) == (
        "outputs of the teacher are kept: 93.0 kB per image, 111.6 MB for 1,200 inputs, "
        "at most 5.0 GB in 'kept'"
    )
    drawn = OutputCache("kept", 10**9, inputs=1200).plan(900)
    assert drawn.endswith("; random augmentation repeats them only in another run of the same seed")
    assert (
        OutputCache("kept", 10**9)
        .plan(900)
        .endswith("900 bytes per image, at most 1.0 GB in 'kept'")
    )


def test_a_teacher_is_known_by_weights_structure_and_results():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU())
    other = nn.Sequential(copy.deepcopy(model[0]), nn.SiLU())
    moved = copy.deepcopy(model)
    with torch.no_grad():
        moved[0].bias += 1
    names = {
        identity_of(model, ["a", "b"]),
        identity_of(model, ["a"]),
        identity_of(other, ["a", "b"]),
        identity_of(moved, ["a", "b"]),
    }
    assert len(names) == 4
    assert identity_of(copy.deepcopy(model), ["b", "a"]) in names
    assert digest_of_image(IMAGES[0]) != digest_of_image(IMAGES[0].view(3, 2, 8))
