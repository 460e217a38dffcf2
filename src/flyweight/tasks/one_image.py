"""Prediction on one image in memory."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from flyweight.config.preprocessing import Preprocessing
from flyweight.data.batch import Batch, ImageTarget
from flyweight.data.images import prepare, to_rgb
from flyweight.tasks.drawing.canvas import Pixels, rgb_pixels

if TYPE_CHECKING:
    from flyweight.tasks.task import Task


def predict(
    task: "Task", model: nn.Module, image: Image.Image | Pixels, preprocessing: Preprocessing
) -> Any:
    """Return the prediction for one image; see `Task.predict`."""
    device = next((tensor.device for tensor in model.state_dict().values()), torch.device("cpu"))
    batch = one_image_batch(image_tensor(image), preprocessing).to(device)
    with torch.inference_mode():
        return task.decode(task.forward(model, batch), batch)[0]


def image_tensor(image: Image.Image | Pixels) -> Tensor:
    """Return an image in memory as `(3, height, width)` uint8 RGB.

    Args:
        image: An array `(height, width, 3)` uint8 RGB, or a Pillow image, which becomes RGB.

    Raises:
        DataError: An array of another shape or type.
    """
    pixels = np.asarray(to_rgb(image)) if isinstance(image, Image.Image) else image
    # Channel after channel, as `data.images.read_image` returns files.
    return torch.from_numpy(np.array(rgb_pixels(pixels).transpose(2, 0, 1), order="C"))


def one_image_batch(image: Tensor, preprocessing: Preprocessing, path: Path = Path()) -> Batch:
    """Return a batch of one image without any labels.

    Args:
        image: `(3, height, width)` uint8 RGB.
        preprocessing: How the network's input is made of it.
        path: Its file, if there is one.
    """
    height, width = image.shape[-2:]
    target = ImageTarget(
        image_id=0,
        path=path,
        original_size=(height, width),
        scale=preprocessing.scale(height, width),
    )
    return Batch(prepare(image, preprocessing)[None], (target,))
