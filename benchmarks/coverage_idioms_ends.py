"""Idioms of heads, results, inputs and modes."""

from collections import deque, namedtuple
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everybody writes
from coverage_case import Inputs
from coverage_idioms_blocks import cna
from torch import Tensor, nn

_NUMBERS = 4


def body() -> nn.Module:
    """Return two blocks from an image to 16 channels at half the size."""
    return nn.Sequential(cna(3, 12), cna(12, 16, 3, 2))


class Distribution(nn.Module):
    """The distribution focal head: sides as expectations over bins."""

    def __init__(self, bins: int = 8) -> None:
        super().__init__()
        self.bins, self.body = bins, body()
        self.box = nn.Sequential(cna(16, 16), nn.Conv2d(16, 4 * bins, 1))
        self.kind = nn.Sequential(cna(16, 16), nn.Conv2d(16, 3, 1))
        self.expect = nn.Conv2d(bins, 1, 1, bias=False).requires_grad_(requires_grad=False)
        self.expect.weight.data[:] = torch.arange(bins).view(1, bins, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        box, kind = self.box(y).flatten(2), self.kind(y).flatten(2)
        b, _, n = box.shape
        box = self.expect(box.view(b, 4, self.bins, n).transpose(2, 1).softmax(1)).view(b, 4, n)
        return torch.cat([box, kind.sigmoid()], 1)


class EmptyAnchors(nn.Module):
    """A detector's head that starts with empty anchors and makes them for the size it meets."""

    shape: tuple[int, ...] | None = None
    anchors = torch.empty(0)
    strides = torch.empty(0)

    def __init__(self) -> None:
        super().__init__()
        self.body, self.deep = body(), cna(16, 24, 3, 2)
        self.heads = nn.ModuleList(nn.Sequential(cna(w, 12), nn.Conv2d(12, 6, 1)) for w in (16, 24))
        self.device = torch.empty(0)

    def places(self, levels: list[Tensor]) -> None:
        found, strides = [], []
        for level, stride in zip(levels, (2, 4), strict=True):
            rows, columns = (torch.arange(n).to(level) + 0.5 for n in level.shape[-2:])
            grid = torch.meshgrid(rows, columns, indexing="ij")
            found.append(torch.stack(grid[::-1], -1).view(-1, 2))
            strides.append(torch.full((len(found[-1]), 1), stride).to(level))
        self.anchors, self.strides = (torch.cat(one).transpose(0, 1) for one in (found, strides))

    def forward(self, x: Tensor) -> Any:
        one = self.body(x)
        levels = [head(y) for head, y in zip(self.heads, (one, self.deep(one)), strict=True)]
        if self.training:
            return levels
        if self.shape != x.shape:
            self.places(levels)
            self.shape = x.shape
        both = torch.cat([level.view(len(x), 6, -1) for level in levels], 2)
        box, kind = both.split((4, 2), 1)
        box = (self.anchors[None] - box[:, :2], self.anchors[None] + box[:, 2:])
        return torch.cat([*(part * self.strides for part in box), kind.sigmoid()], 1), levels


class DeepSupervision(nn.Module):
    """Three heads; the results of two are returned in training alone."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList([cna(3, 8), cna(8, 12, 3, 2), cna(12, 16, 3, 2)])
        self.heads = nn.ModuleList(nn.Conv2d(width, 5, 1) for width in (8, 12, 16))

    def forward(self, x: Tensor) -> Any:
        size, found = x.shape[2:], []
        for stage, head in zip(self.stages, self.heads, strict=True):
            x = stage(x)
            found.append(F.interpolate(head(x), size=size, mode="bilinear"))
        return found if self.training else found[-1]


class SharedList(nn.Module):
    """Results of inner heads go through a list that modules share; training returns them."""

    def __init__(self) -> None:
        super().__init__()
        self.found = [torch.zeros(1)]
        self.inner = Leaving(self.found)
        self.last = nn.Conv2d(16, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.last(self.inner(x))
        return torch.stack([y, *self.found], 1) if self.training else y


class Leaving(nn.Module):
    """Leaves the result of its head in a list."""

    def __init__(self, found: list[Tensor]) -> None:
        super().__init__()
        self.found, self.body, self.head = found, body(), nn.Conv2d(16, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        self.found[0] = self.head(y)
        return y


class TrainingHead(nn.Module):
    """A head that runs in training only."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.deep = body(), cna(16, 24, 3, 2)
        self.aux = nn.Sequential(cna(16, 12), nn.Conv2d(12, 5, 1))
        self.last = nn.Conv2d(24, 5, 1)

    def forward(self, x: Tensor) -> Any:
        y = self.body(x)
        found = {"out": self.last(self.deep(y))}
        if self.training:
            found["aux"] = self.aux(y)
        return found


class Flagged(nn.Module):
    """Results that grow with a flag of the module; a counter that every training step raises."""

    def __init__(self) -> None:
        super().__init__()
        self.return_features = True
        self.body, self.last = body(), nn.Conv2d(16, 5, 1)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.register_buffer("mean", torch.zeros(16))

    def forward(self, x: Tensor) -> Any:
        y = self.body(x)
        if self.training:
            self.steps += 1
            with torch.no_grad():
                self.mean.lerp_(y.mean((0, 2, 3)), 0.1)
        z = self.last(y - self.mean[:, None, None])
        return (z, y.mean((2, 3))) if self.return_features else z


class Told(NamedTuple):
    """A named tuple of results."""

    scores: Tensor
    features: Tensor


@dataclass
class Plain:
    """A data class of results."""

    scores: Tensor
    features: Tensor


@dataclass(slots=True, frozen=True)
class Slotted:
    """A data class without a dictionary."""

    scores: Tensor
    features: Tensor


class Returning(nn.Module):
    """A network whose result is made by a function of scores and features."""

    def __init__(self, made: Any) -> None:
        super().__init__()
        self.body, self.deep, self.last = body(), cna(16, 16), nn.Linear(16, 5)
        self.made = made

    def forward(self, x: Tensor) -> Any:
        y = self.body(x)
        return self.made(self.last(self.deep(y).mean((2, 3))), y)


class Lists(nn.Module):
    """Results that leave as numbers of Python."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.deep = body(), cna(16, 16)
        self.score, self.box = nn.Linear(16, 5), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Any:
        y = self.deep(self.body(x)).mean((2, 3))
        score = self.score(y)
        return score, [] if self.training else self.box(y).tolist()


class Decoding(nn.Module):
    """Boxes above a threshold, the best first; how many depends on the values."""

    def __init__(self) -> None:
        super().__init__()
        self.body = body()
        self.score, self.box = nn.Conv2d(16, 1, 1), nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Any:
        y = self.body(x)
        score, box = self.score(y).flatten(1), self.box(y).flatten(2).transpose(1, 2)
        if self.training:
            return score, box
        found = []
        for one, boxes in zip(score, box, strict=True):
            best, places = one.topk(5)
            kept = best > best.mean()
            found.append({"scores": best[kept], "boxes": boxes[places[kept]]})
        return found


class SoftArgmax(nn.Module):
    """Points as expectations over a map of heat."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.heat = body(), nn.Conv2d(16, 5, 1)

    def forward(self, x: Tensor) -> Any:
        heat = self.heat(self.body(x))
        share = heat.flatten(2).softmax(-1).view_as(heat)
        rows = (share.sum(3) * torch.arange(heat.shape[2]).to(heat)).sum(-1)
        columns = (share.sum(2) * torch.arange(heat.shape[3]).to(heat)).sum(-1)
        return torch.stack([columns, rows], -1), heat.amax((2, 3))


class Cosine(nn.Module):
    """Normalised features against normalised class weights, as in face recognition."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.embed = body(), nn.Linear(16, 12)
        self.weight = nn.Parameter(torch.randn(5, 12))
        self.scale = nn.Parameter(torch.tensor(3.0))

    def forward(self, x: Tensor) -> Tensor:
        y = F.normalize(self.embed(self.body(x).mean((2, 3))))
        return F.linear(y, F.normalize(self.weight)) * self.scale.exp()


class Spatial(nn.Module):
    """A spatial transformer: the network looks at a part of its own features."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.where = body(), nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 6))
        self.last = nn.Sequential(cna(16, 16), nn.Conv2d(16, 5, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        theta = self.where(y.mean((2, 3))).view(-1, 2, 3)
        grid = F.affine_grid(theta, list(y.shape), align_corners=False)
        found: Tensor = self.last(F.grid_sample(y, grid, align_corners=False))
        return found


class Taking(nn.Module):
    """A network whose input is read by a function, with a second one that scales it."""

    def __init__(self, read: Any) -> None:
        super().__init__()
        self.read, self.body, self.last = read, body(), nn.Conv2d(16, 5, 1)

    def forward(self, batch: Any) -> Tensor:
        image, scale = self.read(batch)
        found: Tensor = self.last(self.body(image * scale))
        return found


class Masked(nn.Module):
    """Tokens with a padding mask by keyword; True is padding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.wide = nn.Linear(6, 16), nn.Linear(16, 24)
        self.attend, self.last = nn.MultiheadAttention(16, 2, batch_first=True), nn.Linear(24, 5)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, pool: bool = True) -> Any:
        y = self.embed(x)
        y = y + self.attend(y, y, y, key_padding_mask=mask, need_weights=False)[0]
        score = self.last(torch.relu(self.wide(y)))
        if mask is None:
            return score
        best = score.masked_fill(mask[..., None], float("-inf"))
        return (best.amax(1) if pool else best, mask)


class Conditioned(nn.Module):
    """Features scaled and shifted by a step and a class (FiLM), as in diffusion."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.kinds = body(), nn.Embedding(4, 8)
        self.step = nn.Sequential(nn.Linear(8, 16), nn.SiLU(), nn.Linear(16, 32))
        self.norm, self.last = nn.GroupNorm(4, 16, affine=False), nn.Conv2d(16, 3, 3, 1, 1)

    def forward(self, x: Tensor, step: Tensor, kind: Tensor) -> Tensor:
        angle = step[:, None] / 10 ** torch.arange(4).to(x)
        told = torch.cat([angle.sin(), angle.cos()], 1) + self.kinds(kind)
        scale, shift = self.step(told)[:, :, None, None].chunk(2, 1)
        found: Tensor = self.last(F.silu(self.norm(self.body(x)) * (1 + scale) + shift))
        return found


class Towers(nn.Module):
    """Words and an image in one space; two towers whose features meet in a product."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.image = body(), nn.Linear(16, 12, bias=False)
        self.words, self.text = nn.Embedding(20, 16), nn.Linear(16, 12, bias=False)

    def forward(self, words: Tensor, image: Tensor) -> Tensor:
        one = self.image(self.body(image).mean((2, 3)))
        two = self.text(torch.tanh(self.words(words)).mean(1))
        one = one / one.norm(dim=-1, keepdim=True)
        return one @ (two / two.norm(p=2, dim=-1, keepdim=True)).t()


class TiedWords(nn.Module):
    """An embedding that is also the head (tied weights), after a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.mix = nn.Embedding(20, 16), nn.Sequential(nn.Linear(16, 24), nn.ReLU())
        self.back, self.head = nn.Linear(24, 16), nn.Linear(16, 20, bias=False)
        self.head.weight = self.words.weight

    def forward(self, words: Tensor) -> Tensor:
        found: Tensor = self.head(torch.tanh(self.back(self.mix(self.words(words)))))
        return found


class Frames(nn.Module):
    """Frames as one batch, with a temporal shift of a fraction of the channels."""

    def __init__(self, frames: int = 4, part: int = 4) -> None:
        super().__init__()
        self.frames, self.part = frames, part
        self.body, self.mix, self.last = body(), cna(16, 16), nn.Linear(16, 5)

    def shifted(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        x = x.view(n // self.frames, self.frames, c, h, w)
        fold, found = c // self.part, torch.zeros_like(x)
        found[:, :-1, :fold] = x[:, 1:, :fold]
        found[:, 1:, fold : 2 * fold] = x[:, :-1, fold : 2 * fold]
        found[:, :, 2 * fold :] = x[:, :, 2 * fold :]
        return found.view(n, c, h, w)

    def forward(self, x: Tensor) -> Tensor:
        b, t = x.shape[:2]
        y = self.mix(self.shifted(self.body(x.reshape(b * t, *x.shape[2:]))))
        found: Tensor = self.last(y.mean((2, 3))).view(b, t, -1).mean(1)
        return found


class Causal(nn.Module):
    """A temporal network of one axis: padded on the left, cut on the right."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.utils.parametrizations.weight_norm(nn.Conv1d(6, 16, 3, padding=2))
        self.second, self.norm = nn.Conv1d(16, 16, 3, padding=4, dilation=2), nn.BatchNorm1d(16)
        self.skip, self.last = nn.Conv1d(6, 16, 1), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.first(x)[..., :-2])
        y = self.norm(self.second(y)[:, :, :-4].contiguous())
        found: Tensor = self.last(torch.relu(y + self.skip(x))[..., -1])
        return found


Batch = namedtuple("Batch", ["image", "scale"])


@dataclass
class Data:
    """A data class as input."""

    image: Tensor
    scale: Tensor


def _image(batch: int, side: int) -> Tensor:
    return torch.randn(batch, 3, side, side)


def _mapping(batch: int, side: int) -> Inputs:
    return ({"image": _image(batch, side), 1: torch.rand(batch, 1, 1, 1) + 0.5},), {}


def _named(batch: int, side: int) -> Inputs:
    return (Batch(_image(batch, side), torch.rand(batch, 1, 1, 1) + 0.5),), {}


def _data(batch: int, side: int) -> Inputs:
    return (Data(_image(batch, side), torch.rand(batch, 1, 1, 1) + 0.5),), {}


def _pairs(batch: int, side: int) -> Inputs:
    return ([_image(batch, side), torch.rand(batch, 1, 1, 1) + 0.5],), {}


def _padded(batch: int, side: int) -> Inputs:
    mask = torch.arange(side)[None] >= side - 2 - torch.arange(batch)[:, None] % 3
    return (torch.randn(batch, side, 6),), {"mask": mask}


def _steps(batch: int, side: int) -> Inputs:
    return (_image(batch, side), torch.arange(1, batch + 1), torch.arange(batch) % 4), {}


def _both(batch: int, side: int) -> Inputs:
    return (torch.arange(batch * 5).reshape(batch, 5) % 20,), {"image": _image(batch, side)}


def _words(batch: int, side: int) -> Inputs:
    return (torch.arange(batch * side).reshape(batch, side) % 20,), {}


def _frames(batch: int, side: int) -> Inputs:
    return (torch.randn(batch, 4, 3, side, side),), {}


def _signal(batch: int, side: int) -> Inputs:
    return (torch.randn(batch, 6, side),), {}


ENDS: dict[str, tuple[Any, Any]] = {
    "DFL head": (Distribution, None),
    "empty anchors": (EmptyAnchors, None),
    "deep supervision": (DeepSupervision, None),
    "training-only head": (TrainingHead, None),
    "results in a shared list": (SharedList, None),
    "flags and counters": (Flagged, None),
    "result in a dictionary": (lambda: Returning(lambda a, b: {"scores": a, "aux": {0: b}}), None),
    "result in a named tuple": (lambda: Returning(Told), None),
    "result in a data class": (lambda: Returning(Plain), None),
    "result in a slotted class": (lambda: Returning(Slotted), None),
    "result in a deque": (lambda: Returning(lambda a, b: deque([a, b])), None),
    "result in numbers": (Lists, None),
    "decoding by values": (Decoding, None),
    "soft argmax": (SoftArgmax, None),
    "cosine head": (Cosine, None),
    "spatial transformer": (Spatial, None),
    "input in a dictionary": (lambda: Taking(lambda b: (b["image"], b[1])), _mapping),
    "input in a named tuple": (lambda: Taking(lambda b: (b.image, b.scale)), _named),
    "input in a data class": (lambda: Taking(lambda b: (b.image, b.scale)), _data),
    "input in a list": (lambda: Taking(lambda b: (b[0], b[1])), _pairs),
    "mask by keyword": (Masked, _padded),
    "steps and classes": (Conditioned, _steps),
    "two towers": (Towers, _both),
    "tied words": (TiedWords, _words),
    "temporal shift": (Frames, _frames),
    "causal layers": (Causal, _signal),
}
