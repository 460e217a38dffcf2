"""Networks with random weights, of which the benchmarks of quantization measure times."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import flyweight as fw


class TransposedUNet(nn.Module):
    """A UNet of three levels that upsamples by transposed convolutions.

    Args:
        width: Channels of the first level.
    """

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width]
        self.down = nn.ModuleList(
            _double(before, after) for before, after in zip([3, *widths], widths, strict=False)
        )
        self.middle = _double(widths[-1], 8 * width)
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * one, one, 2, 2) for one in widths[::-1])
        self.join = nn.ModuleList(_double(2 * one, one) for one in widths[::-1])
        self.last = nn.Conv2d(width, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return scores `(n, 2, h, w)` of images `(n, 3, h, w)`."""
        kept = []
        for block in self.down:
            images = block(images)
            kept.append(images)
            images = nn.functional.max_pool2d(images, 2)
        images = self.middle(images)
        for up, join, skip in zip(self.up, self.join, kept[::-1], strict=True):
            images = join(torch.cat([up(images), skip], 1))
        scores: Tensor = self.last(images)
        return scores


def _double(before: int, after: int) -> nn.Sequential:
    parts: list[nn.Module] = []
    for channels in (before, after):
        parts += [nn.Conv2d(channels, after, 3, padding=1, bias=False), nn.BatchNorm2d(after)]
        parts += [nn.ReLU()]
    return nn.Sequential(*parts)


@dataclass(frozen=True)
class Untrained:
    """A network with random weights.

    Attributes:
        build: Makes it.
        size: Height and width of the input.
        rewrites: Whether precisions are chosen with and without its transposed convolutions
            rewritten.
    """

    build: Callable[[], nn.Module]
    size: int
    rewrites: tuple[bool, ...] = (False,)

    def made(self) -> nn.Module:
        """Return the network in evaluation mode; the same one each time."""
        torch.manual_seed(0)
        return self.build().eval()


UNTRAINED: Mapping[str, Untrained] = {
    "mobilenet_v3_small": Untrained(lambda: fw.create("torchvision/mobilenet_v3_small"), 224),
    "ssdlite_mobilenet_v3_small": Untrained(lambda: fw.create("ssdlite_mobilenet_v3_small"), 320),
    "unet": Untrained(TransposedUNet, 256, (False, True)),
}
