"""Layers that several networks share."""

from torch import Tensor, nn

from flyweight.zoo import library_parts


class ConvNormActivation(nn.Module):
    """Convolution without bias, batch norm, activation.

    The three are named `conv`, `bn` and `activation`. These names are part of the parameter names.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Side of the square kernel; the padding keeps the size at stride 1.
        stride: Step of the kernel.
        groups: Groups of the convolution; `in_channels` for a depthwise one.
        activation: Module after the norm; None means `ReLU`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        activation: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            groups=groups,
            bias=False,
        )
        self.bn = nn.BatchNorm2d(out_channels)
        self.activation = nn.ReLU() if activation is None else activation

    def forward(self, images: Tensor) -> Tensor:
        """Return the activated map, `(n, out_channels, h / stride, w / stride)`."""
        normed: Tensor = self.bn(self.conv(images))
        activated: Tensor = self.activation(normed)
        return activated


def scaled(channels: int, width: float) -> int:
    """Return `channels` times `width` as a multiple of 8, never more than 10 % below.

    This is the rounding of MobileNetV2 (arXiv 1801.04381) and of timm, so that the weights of their
    narrow networks have the same shapes.

    Example:
        >>> scaled(64, 1.0), scaled(64, 0.25), scaled(32, 0.35), scaled(32, 0.01)
        (64, 16, 16, 8)
    """
    rounded = max(8, int(channels * width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels * width else rounded


def initialise_convolutions(model: nn.Module) -> None:
    """Initialise the weight of every convolution by He's normal distribution (arXiv 1502.01852)."""
    for module in model.modules():
        # On the meta device this has no effect, but torch would import its compiler for seconds.
        if not isinstance(module, nn.Conv2d) or module.weight.is_meta:
            continue
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def freeze_norms(model: nn.Module) -> None:
    """Replace every batch norm of `model` by one with constant statistics and factors, in place.

    Detectors with large images train with batches that are too small for batch statistics. They
    keep the statistics and factors of the pretrained classifier (arXiv 1506.01497).
    """
    for module in list(model.modules()):
        for name, child in module.named_children():
            if not isinstance(child, nn.BatchNorm2d):
                continue
            frozen = library_parts.FrozenBatchNorm2d(child.num_features, child.eps)
            frozen = frozen.to(child.weight.device)
            frozen.load_state_dict(child.state_dict(), strict=True)
            setattr(module, name, frozen)
