import numpy as np
import pytest
import torch
from pycocotools import mask as oracle

from flyweight.data.layouts.outlines import masks_of, read_outline, run_lengths_of

SIZE = (30, 40)
STAR = [[5.5, 3, 20, 8, 33, 4, 25, 22.25, 8, 26], [1, 1, 4, 1, 4, 4]]


def theirs(segmentation):
    if isinstance(segmentation, list):
        return oracle.merge(oracle.frPyObjects(segmentation, *SIZE))
    counts = segmentation["counts"]
    if isinstance(counts, list):
        return oracle.frPyObjects(segmentation, *SIZE)
    return {**segmentation, "counts": counts.encode()}


def lengths():
    blob = np.zeros(SIZE, dtype=np.uint8, order="F")
    blob[4:20, 6:30] = 1
    blob[8:12, 10:20] = 0
    compressed = oracle.encode(blob)
    flat = blob.flatten(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, len(flat)]).tolist()
    return (
        {"size": list(SIZE), "counts": compressed["counts"].decode()},
        {"size": list(SIZE), "counts": counts},
    )


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools'
@pytest.mark.parametrize("segmentation", [STAR, *lengths()], ids=["polygons", "packed", "counts"])
def test_masks_are_pycocotools_s(segmentation):
    outline = read_outline(segmentation)
    wanted = oracle.decode(theirs(segmentation))
    found = masks_of([outline], SIZE)
    assert (found.dtype, tuple(found.shape)) == (torch.uint8, (1, *SIZE))
    assert np.array_equal(found[0].numpy(), wanted)
    assert 0 < wanted.sum() < wanted.size
    packed = run_lengths_of(outline, SIZE)
    assert np.array_equal(oracle.decode(packed), wanted)


def test_run_lengths_of_another_size_are_cut_or_padded():
    outline = read_outline(lengths()[0])
    small, large = masks_of([outline], (10, 50))[0], masks_of([outline], SIZE)[0]
    assert torch.equal(small[:, :40], large[:10])
    assert small[:, 40:].sum() == 0


def test_no_outlines_are_no_masks():
    assert masks_of([], SIZE).shape == (0, *SIZE)


@pytest.mark.parametrize(
    "segmentation",
    [
        None,
        [],
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5, 6, 7]],
        [[1, 2, 3, 4, 5, "6"]],
        [[1, 2, 3, 4, 5, 1e300]],
        [STAR[0], "x"],
        {"size": [30, 40]},
        {"size": [30, 40], "counts": [5, 6]},
        {"size": [30], "counts": "x"},
        {"size": [30, 40.5], "counts": "x"},
    ],
)
def test_what_makes_no_sense(segmentation):
    assert read_outline(segmentation) is None


def test_compressed_run_lengths_are_decoded_when_they_are_read():
    generator = np.random.default_rng(0)
    for _ in range(200):
        size = tuple(generator.integers(1, 60, 2).tolist())
        blob = np.asfortranarray(generator.random(size) < generator.random() ** 3).astype(np.uint8)
        sound = {"size": list(size), "counts": oracle.encode(blob)["counts"].decode()}
        assert read_outline(sound) is sound
        for counts in (sound["counts"][:-1], sound["counts"] + "1", repr(sound["counts"].encode())):
            assert read_outline({**sound, "counts": counts}) is None
    for counts in ("", "é", "\x00", "o" * 40, "l" * 40 + "1"):
        assert read_outline({"size": [30, 40], "counts": counts}) is None
    assert read_outline({"size": [-30, -40], "counts": "x"}) is None
