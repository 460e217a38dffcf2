"""Operations on matrices whose rows and columns are those of images."""

import pytest
import torch
from tests.graph.rules.conftest import Around, cut

from flyweight.graph import trace


def eye(x):
    return 10 * torch.eye(8, dtype=x.dtype)


PASSING = {
    "inverse": lambda m, x: torch.linalg.inv(x + eye(x)),
    "solved": lambda m, x: torch.linalg.solve(x + eye(x), x),
    "solved by one matrix": lambda m, x: torch.linalg.solve(eye(x), x),
    "exponential": lambda m, x: torch.matrix_exp(x / 10),
    "factors": lambda m, x: torch.linalg.qr(x + eye(x))[1],
    "determinant": lambda m, x: x * torch.linalg.det(x / 4 + torch.eye(8))[..., None, None],
    "lower half": lambda m, x: x.tril() + 2 * x.triu(1),
    "diagonal": lambda m, x: x + x.diagonal(dim1=2, dim2=3)[..., None],
    "diagonal of others": lambda m, x: x + x.movedim(1, 2).diagonal(dim1=1, dim2=3)[..., None],
    "matrix of a diagonal": lambda m, x: x @ torch.diag_embed(x.mean(3)),
}


@pytest.mark.parametrize("kind", PASSING)
def test_channels_beside_a_matrix_pass(kind):
    cut(Around(PASSING[kind]))


def distances(model, x):
    vectors = x.flatten(2)  # one vector per channel
    return x * torch.cdist(vectors, model.codes.expand(len(x), -1, -1)).mean(2)[..., None, None]


def test_distances_of_channels_pass():
    cut(Around(distances, codes=torch.randn(1, 5, 64)))


def test_distances_over_channels_are_mixed():
    def far(model, x):
        pixels = x.flatten(2).transpose(1, 2)
        return x * torch.cdist(pixels, model.codes).amin(2).view(len(x), 1, 8, 8)

    model = Around(far, codes=torch.randn(5, 16))
    group = trace(model, (torch.rand(1, 3, 8, 8),)).groups["second.weight"]
    assert (group.reason, group.mixes) == (None, ("cdist in the model's forward",))


@pytest.mark.parametrize(
    ("op", "arguments", "shapes"),
    [
        ("linalg_inv_ex", {}, [(2, 4, 4), (2,)]),
        ("triu", {}, [(2, 4, 4)]),
        ("diagonal", {"dim1": 1, "dim2": 2}, [(2, 4)]),
        ("diag_embed", {}, [(2, 4, 4, 4)]),
    ],
)
def test_channels_that_are_rows_freeze(bench, op, arguments, shapes):
    name = "A" if op == "linalg_inv_ex" else "self"
    x = bench.flow(2, 4, 4, axes=[0, 2])
    out = bench.run(op, *shapes, **{name: x}, **arguments)
    flows = out if isinstance(out, tuple) else (out,)
    assert [flow.field_on(0).ids.tolist() for flow in flows] == [[0, 1]] * len(flows)
    assert bench.frozen_ids == [2, 3, 4, 5]
