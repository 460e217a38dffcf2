import pytest
import torch

from flyweight.data.batch import Batch
from flyweight.engine.network_errors import network_errors
from flyweight.errors import DataError, TrainingError

BATCH = Batch(torch.zeros(1, 3, 8, 8), ({},))


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (ValueError("Expected more than 1 value per channel when training"), "of at least 2"),
        (torch.OutOfMemoryError("CUDA out of memory"), "Give a smaller train.batch_size"),
        (KeyError("a\nb"), "Check input_size"),
    ],
)
def test_what_a_network_raises_is_one_line(error, remedy):
    with pytest.raises(TrainingError, match=remedy) as refusal, network_errors(BATCH, "step 3"):
        raise error
    text = str(refusal.value)
    assert "in step 3, for images of 1 x 3 x 8 x 8: " in text
    assert "test_network_errors.py:" in text
    assert "\n" not in text


def test_our_own_errors_and_stops_pass():
    for error in (DataError("an image"), KeyboardInterrupt()):
        with pytest.raises(type(error)), network_errors(BATCH, "step 3"):
            raise error


def test_batch_norm_of_one_value():
    model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.BatchNorm2d(3))
    with (
        pytest.raises(TrainingError, match=r"step 1.*Give train\.batch_size of at least 2"),
        network_errors(BATCH, "step 1"),
    ):
        model(BATCH.images)
