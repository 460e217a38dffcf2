"""Similarity of a student's features and its teacher's, whatever their widths."""

import torch
from torch import Tensor

_MOST_POSITIONS = 4096
"""Positions that are compared; the measure hardly changes with more."""


def linear_cka(student: Tensor, teacher: Tensor) -> float:
    """Return the linear centred kernel alignment: 1 for features equal up to rotation and scale.

    `||T'S||^2 / (||S'S|| ||T'T||)` with Frobenius norms and centred columns (arXiv 1905.00414,
    section 3), every position of every image being one row.

    Args:
        student: `(n, channels, h, w)` or `(n, channels)`.
        teacher: Likewise, of the same n, h and w; the number of channels may differ.

    Returns:
        Within 0..1; 0 where one of them is constant.
    """
    ours, theirs = _rows(student), _rows(teacher)
    common = torch.linalg.matrix_norm(theirs.T @ ours).square()
    sizes = torch.linalg.matrix_norm(ours.T @ ours) * torch.linalg.matrix_norm(theirs.T @ theirs)
    return float(common / sizes) if sizes > 0 else 0.0


def _rows(features: Tensor) -> Tensor:
    rows = features.detach().to(torch.float64).movedim(1, -1).flatten(0, -2)
    step = -(-len(rows) // _MOST_POSITIONS)
    rows = rows[::step]
    return rows - rows.mean(dim=0)
