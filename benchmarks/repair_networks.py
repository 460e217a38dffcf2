"""Small networks full of LayerNorm, trained here on photos, for `repair_norms.py`.

No public weights of such networks are small enough to lie beside this repository, so they are
trained from scratch: on labels and on the logits of a trained MobileNetV2.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.models.convnext import ConvNeXt
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

SIZE = 96
_LOADED = 108
_CLASSES = 10
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def convnext() -> nn.Module:
    """Return a ConvNeXt of 1.7 million parameters."""
    return ConvNeXt(num_classes=_CLASSES, depths=(2, 2, 4, 2), dims=(32, 64, 128, 256))


def convnext_v2() -> nn.Module:
    """Return a ConvNeXt V2, whose blocks have a global response normalisation too."""
    return ConvNeXt(
        num_classes=_CLASSES,
        depths=(2, 2, 4, 2),
        dims=(32, 64, 128, 256),
        use_grn=True,
        ls_init_value=None,
    )


def vit() -> nn.Module:
    """Return a vision transformer of 1.3 million parameters, as CLIP's image tower is built."""
    return VisionTransformer(
        img_size=SIZE,
        patch_size=12,
        num_classes=_CLASSES,
        embed_dim=128,
        depth=6,
        num_heads=4,
        global_pool="avg",
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "convnext": convnext,
    "convnext_v2": convnext_v2,
    "vit": vit,
}


def photos(root: Path, split: str) -> tuple[Tensor, Tensor]:
    """Return the images of a split, bytes `(n, 3, 108, 108)`, and their classes."""
    folders = sorted(path for path in (root / split).iterdir() if path.is_dir())
    images, labels = [], []
    for label, folder in enumerate(folders):
        for path in sorted(folder.iterdir()):
            with Image.open(path) as file:
                image = file.convert("RGB").resize((_LOADED, _LOADED), Image.Resampling.BILINEAR)
            images.append(torch.from_numpy(np.array(image)).permute(2, 0, 1))
            labels.append(label)
    return torch.stack(images), torch.tensor(labels)


def centred(images: Tensor) -> Tensor:
    """Return the middle of images, normalised."""
    edge = (_LOADED - SIZE) // 2
    return _normalised(images[:, :, edge : edge + SIZE, edge : edge + SIZE])


def _normalised(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(values)[:, None, None] for values in (_MEAN, _STD))
    return (images.float() / 255 - mean) / std


@torch.inference_mode()
def logits_of(teacher: nn.Module, images: Tensor, size: int) -> Tensor:
    """Return a trained network's logits for bytes, scaled to its input size."""
    scaled = (
        nn.functional.interpolate(_normalised(part), size=size, mode="bilinear")
        for part in images.split(64)
    )
    return torch.cat([teacher(part) for part in scaled]).clone()


def train(
    name: str,
    root: Path,
    teacher: Callable[[Tensor], Tensor],
    *,
    epochs: int,
    say: Callable[[str], None],
    start: Path | None = None,
) -> nn.Module:
    """Return a trained network.

    Args:
        name: One of `NETWORKS`.
        root: Folder of the photos, with a folder per split and class.
        teacher: Returns logits for bytes `(n, 3, 108, 108)`.
        epochs: Passes over the training images.
        say: Receives a line for each epoch.
        start: Weights of an earlier training to continue from.
    """
    torch.manual_seed(0)
    network = NETWORKS[name]() if start is None else load(name, start)
    images, labels = photos(root, "train")
    wanted = [teacher(images), teacher(images.flip(3))]
    steps = epochs * (len(images) // 32)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps)
    network.train()
    for epoch in range(epochs):
        order, total = torch.randperm(len(images)), 0.0
        for chosen in order[: len(images) // 32 * 32].split(32):
            flipped = torch.rand(()) < 0.5
            batch = _drawn(images[chosen].flip(3) if flipped else images[chosen])
            logits = network(batch)
            target = wanted[int(flipped)][chosen].softmax(1)
            loss = nn.functional.cross_entropy(logits, target)
            loss = loss + 0.5 * nn.functional.cross_entropy(logits, labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        say(f"{name}, epoch {epoch + 1}: loss {total / (len(images) // 32):.3f}")
    return network.eval()


def _drawn(images: Tensor) -> Tensor:
    top, left = (int(torch.randint(0, _LOADED - SIZE + 1, ())) for _ in range(2))
    return _normalised(images[:, :, top : top + SIZE, left : left + SIZE])


def load(name: str, path: Path) -> nn.Module:
    """Return a network with trained weights."""
    network = NETWORKS[name]()
    network.load_state_dict(load_file(path))
    return network.eval()


def save(network: nn.Module, path: Path) -> None:
    """Write the weights of a network."""
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path)
