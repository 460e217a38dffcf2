"""What tells weights from other weights, and a batch from another."""

import hashlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves


def digest_of_tensors(tensors: Iterable[Tensor]) -> str:
    """Return a digest of types, shapes and values, in order."""
    digest = hashlib.blake2b(digest_size=8)
    for tensor in tensors:
        plain = tensor.detach().cpu().contiguous()
        digest.update(str((plain.dtype, tuple(plain.shape))).encode())
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def digest_of_batch(batch: Any) -> str:
    """Return a digest of a batch's images; of an unknown batch, of all its tensors."""
    images = getattr(batch, "images", batch)
    return digest_of_tensors(leaf for leaf in tree_leaves(images) if isinstance(leaf, Tensor))
