import pickle
from copy import deepcopy
from pathlib import Path

import pytest
import torch

from flyweight.data.batch import Batch, BoxTarget


def _target() -> BoxTarget:
    return BoxTarget(
        boxes=torch.tensor([[1.0, 2.0, 3.0, 4.0]]),
        labels=torch.tensor([2]),
        weights=torch.tensor([0.25]),
        difficult=torch.tensor([True]),
        crowd=torch.tensor([False]),
        image_id=7,
        path=Path("a/b.jpg"),
        original_size=(48, 64),
        scale=(2.0, 1.5),
    )


@pytest.mark.parametrize("copy", [deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_target_survives_a_copy(copy):
    copied = copy(_target())
    for name in ("boxes", "labels", "weights", "difficult", "crowd"):
        before, after = getattr(_target(), name), getattr(copied, name)
        assert torch.equal(before, after)
        assert before.dtype == after.dtype
        after.zero_()  # A copy must be writable.
    assert (copied.image_id, copied.path, copied.original_size) == (7, Path("a/b.jpg"), (48, 64))


def test_a_pickled_target_holds_no_tensor_handles():
    """A tensor in shared memory would cost the receiving process a file descriptor."""
    assert b"torch" not in pickle.dumps(_target().__getstate__())


def test_to_moves_every_tensor():
    batch = Batch(torch.zeros(1, 3, 4, 4), (_target(),)).to("meta")
    assert batch.images.device.type == "meta"
    names = ("boxes", "labels", "weights", "difficult", "crowd")
    assert {getattr(batch.targets[0], name).device.type for name in names} == {"meta"}
    assert batch.targets[0].image_id == 7
