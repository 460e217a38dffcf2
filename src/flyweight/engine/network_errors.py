"""Errors of a network's own code, as one line: whatever it raises on a batch."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from flyweight.data.batch import Batch
from flyweight.errors import FlyweightError, TrainingError

_ONE_VALUE = "Expected more than 1 value per channel"
_TEXT = 300


@contextmanager
def network_errors(batch: Batch, when: str) -> Iterator[None]:
    """Return a context in which whatever a network, a loss or a decoder raises becomes one line.

    Args:
        batch: What the network gets.
        when: For the message, such as "step 3".

    Raises:
        TrainingError: In place of an error that is not flyweight's own.
    """
    try:
        yield
    except (FlyweightError, GeneratorExit):
        raise
    except Exception as error:  # whatever the code of a network raises
        text = " ".join(str(error).split())[:_TEXT]
        shape = " x ".join(map(str, batch.images.shape))
        raise TrainingError(
            f"A network must take the batches of its run. Received in {when}, for images of "
            f"{shape}: {type(error).__name__}: {text} (in {_place_of(error)}). "
            f"{_remedy(error, text)}"
        ) from error


def _place_of(error: BaseException) -> str:
    """Return where an error was raised, outside of torch where that is known."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [one for one in frames if "/torch/" not in one.filename.replace("\\", "/")]
    last = (own or frames)[-1]
    return f"{last.filename}:{last.lineno}"


def _remedy(error: BaseException, text: str) -> str:
    if _ONE_VALUE in text:
        return "Give train.batch_size of at least 2, or a larger input_size."
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return "Give a smaller train.batch_size or input_size."
    return "Check input_size, num_classes and model_args."
