"""UNet as PaddleX built it, with the layer names of its parameters.

Ronneberger et al. 2015 (arXiv 1505.04597) with four differences, as in PaddleX: borders are padded,
so that the output is as large as the image; batch norm follows every convolution; the decoder
upsamples bilinearly; and the coarsest block has 512 channels, the decoder 256, 128, 64, 64.

Bilinear upsampling samples at `scale * x` in PaddlePaddle and at `scale * (x + 0.5) - 0.5` in
PyTorch. Weights that were trained with one of them get maps shifted by up to half a pixel with the
other, until they are fine-tuned.
"""

from collections import OrderedDict
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from flyweight.zoo.backbones.blocks import ConvNormActivation, initialise_convolutions, scaled

_ENCODER = (64, 128, 256, 512, 512)
_DECODER = (256, 128, 64, 64)

_SCOPE = r"(?P<scope>(en|de)code\..+)"
OLD_NAMES = (
    (rf"{_SCOPE}\.conv\.weight", "{scope}/weights"),
    (rf"{_SCOPE}\.bn\.weight", "{scope}/BatchNorm/gamma"),
    (rf"{_SCOPE}\.bn\.bias", "{scope}/BatchNorm/beta"),
    (rf"{_SCOPE}\.bn\.running_mean", "{scope}/BatchNorm/moving_mean"),
    (rf"{_SCOPE}\.bn\.running_var", "{scope}/BatchNorm/moving_variance"),
    (r"logit\.weight", "logit/weights"),
)
"""Rules for the names of the parameters in PaddleX, see `old_names`."""


class DoubleConv(nn.Module):
    """Two 3x3 convolutions, `conv0` and `conv1`, each with batch norm and ReLU.

    Args:
        in_channels: Channels of the input.
        channels: Channels of both outputs.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv0 = ConvNormActivation(in_channels, channels, 3)
        self.conv1 = ConvNormActivation(channels, channels, 3)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the map, `(n, channels, h, w)`."""
        convolved: Tensor = self.conv1(self.conv0(maps))
        return convolved


class Nested(nn.Sequential):
    """A module that contains one named module, like the nested scopes of the original.

    Args:
        name: Name of the module inside.
        module: The module.
    """

    def __init__(self, name: str, module: nn.Module) -> None:
        super().__init__(OrderedDict([(name, module)]))


class UNet(nn.Module):
    """Encoder of five blocks, decoder of four, and a 3x3 convolution to the classes.

    Layers are named `encode.block1.conv0` (first block), `encode.block2.down.conv0` (other blocks),
    `decode.decode1.up.conv0` and `logit`.

    Args:
        num_classes: Number of classes, with the background if the data has it as a class.
        width: Multiplies the channels.
    """

    def __init__(self, num_classes: int, *, width: float = 1.0) -> None:
        super().__init__()
        widths = [scaled(channels, width) for channels in _ENCODER]
        self.encode = nn.ModuleDict({"block1": DoubleConv(3, widths[0])})
        for number, (before, after) in enumerate(pairwise(widths), start=2):
            self.encode[f"block{number}"] = Nested("down", DoubleConv(before, after))
        self.decode = nn.ModuleDict()
        channels = widths[-1]
        for number, (skip, base) in enumerate(zip(widths[-2::-1], _DECODER, strict=True), start=1):
            block = DoubleConv(channels + skip, scaled(base, width))
            self.decode[f"decode{number}"] = Nested("up", block)
            channels = scaled(base, width)
        self.logit = nn.Conv2d(channels, num_classes, 3, padding=1, bias=False)
        initialise_convolutions(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return scores `(n, num_classes, h, w)` for images `(n, 3, h, w)` of at least 16 x 16."""
        first, *others = self.encode.values()
        skips = [first(images)]
        for block in others:
            skips.append(block(functional.max_pool2d(skips[-1], 2)))
        data = skips.pop()
        for block in self.decode.values():
            skip = skips.pop()
            data = functional.interpolate(data, size=skip.shape[-2:], mode="bilinear")
            data = block(torch.cat([data, skip], dim=1))
        scores: Tensor = self.logit(data)
        return scores
