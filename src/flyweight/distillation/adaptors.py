"""Adaptors: small networks between a student's features and its teacher's; they learn, too.

They exist during training only and are no part of the student.
"""

import torch
from torch import Tensor, nn

_RIDGE = 1e-3
_SMALLEST = 1e-12
"""Of a mean square, where all features are 0."""


def widener(student_channels: int, teacher_channels: int) -> nn.Conv2d:
    """Return a 1x1 convolution that gives features the teacher's width (arXiv 1412.6550).

    It has no bias, so that features that are all 0 stay 0.
    """
    return nn.Conv2d(student_channels, teacher_channels, 1, bias=False)


def fit_widener_(widen: nn.Module, student: Tensor, teacher: Tensor) -> None:
    """Give a widener the weights that come nearest to the teacher's features.

    With random weights, the first steps of a training move a good student towards features that
    only the adaptor is wrong about. The least squares are
    `min_W |W s - t|^2 + r |W|^2` over images and positions, with r a thousandth of the mean square
    of a student's channel.

    Args:
        widen: A convolution by `widener`; its weight is replaced.
        student: Features `(n, student channels, h, w)`.
        teacher: Features `(n, teacher channels, h, w)`.
    """
    weight = widen.get_parameter("weight")
    wide, narrow = weight.shape[:2]
    products = weight.new_zeros((narrow, narrow), dtype=torch.float64)
    wanted = weight.new_zeros((narrow, wide), dtype=torch.float64)
    with torch.no_grad():
        for ours, theirs in zip(student, teacher, strict=True):  # Double precision takes memory.
            rows = ours.flatten(1).double()
            products += rows @ rows.T
            wanted += rows @ theirs.flatten(1).double().T
        damping = _RIDGE * products.diagonal().mean().clamp(min=_SMALLEST)
        products.diagonal().add_(damping)
        weight.copy_(torch.linalg.solve(products, wanted).T.reshape(weight.shape))


class Generator(nn.Sequential):
    """The generator of `mgd`: two 3x3 convolutions with a ReLU between (arXiv 2205.01529, 3.1).

    Args:
        channels: Of the teacher's features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )


class GlobalContext(nn.Module):
    """The relation of `fgd`: adds to each position what the whole map says (arXiv 1904.11492).

    `x + W2 relu(norm(W1 sum_j softmax_j(Wk x_j) x_j))`. It starts as the identity.

    Args:
        channels: Of the features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // 2, 1)
        self.weigh = nn.Conv2d(channels, 1, 1)
        self.add = nn.Sequential(
            nn.Conv2d(channels, hidden, 1),
            nn.LayerNorm([hidden, 1, 1]),
            nn.ReLU(),
            nn.Conv2d(hidden, channels, 1),
        )
        last = self.add[3]
        nn.init.zeros_(last.get_parameter("weight"))
        nn.init.zeros_(last.get_parameter("bias"))

    def forward(self, features: Tensor) -> Tensor:
        """Return features of the same shape, `(n, channels, h, w)`."""
        shares = self.weigh(features).flatten(1).softmax(dim=1)
        context = torch.einsum("ncp,np->nc", features.flatten(2), shares)
        added: Tensor = self.add(context[:, :, None, None])
        return features + added
