"""Einstein summation in every spelling."""

import string

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.graph.rules.conftest import Around, Bench, cut
from torch import nn

from flyweight.graph import trace
from flyweight.graph.rules.einsum import _spelled
from flyweight.pruning import plan, prune


def parameter(*shape):
    return nn.Parameter(torch.randn(*shape) / 4)


SPELLINGS = {
    "bchw->bhwc": lambda m, x: torch.einsum("bchw->bhwc", x).permute(0, 3, 1, 2),
    "ellipsis": lambda m, x: torch.einsum("bc...,dc->bd...", x, m.square),
    "ellipsis first": lambda m, x: torch.einsum("...hw,w->...hw", x, m.row),
    "ellipsis in the middle": lambda m, x: torch.einsum("b...w,w->b...w", x, m.row),
    "two ellipses": lambda m, x: torch.einsum("...,...->...", x, m.scale[:, None, None]),
    "spaces": lambda m, x: torch.einsum(" b c h w , d c -> b d h w ", x, m.square),
    "three": lambda m, x: torch.einsum("bchw,rc,dr->bdhw", x, m.down, m.up),
    "four": lambda m, x: torch.einsum("bchw,rc,dr,d->bdhw", x, m.down, m.up, m.scale),
    "scale of rows and channels": lambda m, x: torch.einsum("bchw,c,h->bchw", x, m.scale, m.row),
    "diagonal of a weight": lambda m, x: x * torch.einsum("cc->c", m.square)[:, None, None],
    "diagonal of images": lambda m, x: x + torch.einsum("bchh->bch", x)[..., None],
    "trace of images": lambda m, x: x * torch.einsum("bchh->bc", x)[..., None, None],
    "implicit": lambda m, x: torch.einsum("bchw,cx", x, m.square).permute(0, 3, 1, 2),
    "implicit ellipsis": lambda m, x: torch.einsum("...chw,cx", x, m.square).movedim(-1, 1),
    "lists": lambda m, x: torch.einsum(x, [0, 1, 2, 3], m.square, [1, 4], [0, 4, 2, 3]),
    "list of tensors": lambda m, x: torch.einsum("bchw,dc->bdhw", [x, m.square]),
    "gate": lambda m, x: torch.einsum("bchw,bc->bchw", x, x.mean((2, 3)).sigmoid()),
    "capital letters": lambda m, x: torch.einsum("NCHW,DC->NDHW", x, m.square),
    "bilinear": lambda m, x: x * m.both(x.mean((2, 3)), x.amax((2, 3)))[..., None, None],
}
# Where the weights that read are no layers, the zeros are in the weights.
BY_HAND = ("ellipsis", "spaces", "three", "four", "implicit", "lists", "capital", "list of", "bil")


@pytest.mark.parametrize("kind", [kind for kind in SPELLINGS if not kind.startswith(BY_HAND)])
def test_spellings_beside_layers(kind):
    cut(model_of(kind, whole=False))


@pytest.mark.parametrize("kind", SPELLINGS)
def test_every_spelling_is_followed(kind):
    model, x = model_of(kind).double().eval(), torch.randn(1, 3, 8, 8).double()
    graph = trace(model, (x,))
    free = {name for name, group in graph.groups.items() if group.prunable}
    assert {"first.weight", "second.weight", "third.weight"} <= free
    check_zeros_in(model, graph, x)


def model_of(kind, *, whole=True):
    model = Around(SPELLINGS[kind], scale=parameter(16), row=parameter(8), square=parameter(16, 16))
    if whole:
        model.down, model.up = parameter(5, 16), parameter(16, 5)
        model.both = nn.Bilinear(16, 16, 16)
    return model


def check_zeros_in(model, graph, x):
    """Compare with activations zeroed after the layer that makes them, before they are read."""
    made = plan(graph, {"second.weight": 0.5})
    small = prune(model, made)
    gone = sorted(set(range(16)) - set(made.keep["second.weight"]))
    handle = model.second.register_forward_hook(
        lambda _, __, out: out.index_fill(1, torch.tensor(gone), 0)
    )
    with torch.no_grad():
        expected = model(x)
        handle.remove()
        assert float((small(x) - expected).abs().max() / expected.abs().max()) < 1e-12


@st.composite
def equations(draw):
    """Equations of one to three tensors, with shapes."""
    sizes = dict(zip("abcdeA", draw(st.permutations([2, 3, 4, 5, 6, 7])), strict=True))
    hidden = draw(st.lists(st.integers(2, 3), max_size=2))
    terms, shapes = [], []
    for _ in range(draw(st.integers(1, 3))):
        letters = draw(st.lists(st.sampled_from(sorted(sizes)), min_size=1, max_size=3))
        dots = draw(st.booleans())
        place = draw(st.integers(0, len(letters)))
        shown = hidden[draw(st.integers(0, len(hidden))) :] if dots else []
        terms.append("".join(letters[:place]) + ("..." if dots else "") + "".join(letters[place:]))
        shape = [sizes[letter] for letter in letters]
        shapes.append([*shape[:place], *shown, *shape[place:]])
    equation = ",".join(terms)
    if draw(st.booleans()):
        known = sorted(set(equation) & set(string.ascii_letters))
        out = draw(st.lists(st.sampled_from(known), unique=True, max_size=3))
        equation += "->..." + "".join(out) if "..." in equation else "->" + "".join(out)
    return equation, shapes


@given(equations())
def test_the_axes_of_the_result_are_pytorchs(drawn):
    equation, shapes = drawn
    expected = torch.einsum(equation, *(torch.rand(shape) for shape in shapes)).shape
    terms, out = _spelled(equation, [len(shape) for shape in shapes])
    sizes = {}
    for names, shape in zip(terms, shapes, strict=True):
        assert len(names) == len(shape)
        sizes.update(zip(names, shape, strict=True))
    assert [sizes[name] for name in out] == list(expected)


@pytest.mark.parametrize("equation", ["ab", "abcd,a->b", "a...", "abc->a"])
def test_an_equation_for_other_tensors_freezes(bench, equation):
    x = bench.flow(3, 4, 5)
    ranks = equation.count(",") + 1
    if _spelled(equation, [3] * ranks) is None:
        bench.run("einsum", (3,), equation=equation, tensors=[x] * ranks)
        assert set(bench.frozen) == {"enters an einsum that is not followed"}
    else:
        assert equation in ("a...", "abc->a")


def test_a_diagonal_joins_its_axes():
    bench = Bench()
    x = bench.flow(3, 3, 2, parameter=True)
    out = bench.run("einsum", (3, 2), equation="aab->ab", tensors=[x])
    assert bench.together(x.fields[0].ids, x.fields[1].ids)
    assert np.array_equal(out.field_on(1).ids, x.fields[2].ids)
