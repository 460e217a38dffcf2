import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests import strategies

from flyweight.graph import trace
from flyweight.graph.dispatch import evaluating
from flyweight.pruning import masked, plan, prune
from flyweight.replay.folding import fold
from flyweight.replay.rerun import record
from flyweight.replay.suffix import suffix_of

RATIOS = (0.25, 0.5, 0.75)


def outputs_of(model, x, plans, groups, rescaled=()):
    """Return what the part of the run that changes says for each plan."""
    found = {}
    with evaluating(model):
        run = record(model, lambda: model(x))
        folded = fold(run)
        part = suffix_of(run, folded, groups, rescaled)
        run = record(model, lambda: model(x), part.needed)
        values = {**run.values, **folded.values}
        for place, changed in part.runs(values, [one.keep for one in plans]):
            found[place] = run.outputs_with(changed).clone()
    return [found[place] for place in range(len(plans))], part


def relative(found, expected):
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-12))


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(strategies.networks(), st.integers(0, 1000))
def test_every_cut_of_random_networks_gives_what_the_pruned_network_gives(model, seed):
    torch.manual_seed(seed)
    (x,) = strategies.example()
    graph = trace(model, (x,))
    for group in graph.prunable().values():
        plans = [one for r in RATIOS if (one := plan(graph, {group.name: r})).groups]
        if not plans:
            continue
        found, _ = outputs_of(model, x, plans, [group], graph.rescaled)
        for one, output in zip(plans, found, strict=True):
            with torch.no_grad():
                assert relative(output, prune(model, one, verify=False)(x)) <= 1e-9
                assert relative(output, masked(model, one)(x)) <= 1e-9


@pytest.mark.parametrize("kind", strategies.BUILDERS)
def test_every_kind_of_coupling(kind):
    model, (x,) = strategies.build([kind, "chain"]), strategies.example()
    graph = trace(model, (x,))
    for group in graph.prunable().values():
        plans = [plan(graph, {group.name: ratio}) for ratio in RATIOS]
        plans = [one for one in plans if one.groups]
        found, _ = outputs_of(model, x, plans, [group], graph.rescaled)
        for one, output in zip(plans, found, strict=True):
            with torch.no_grad():
                assert relative(output, prune(model, one, verify=False)(x)) <= 1e-9


def test_a_layer_that_reads_unchanged_channels_is_summed_and_nothing_before_it_runs():
    model, (x,) = strategies.build(["chain", "chain", "chain"]), strategies.example()
    graph = trace(model, (x,))
    group = graph.groups["blocks.1.0.weight"]
    plans = [plan(graph, {group.name: ratio}) for ratio in RATIOS]
    _, part = outputs_of(model, x, plans, [group], graph.rescaled)
    assert len(part.sums) == 1
    assert not part.narrow
    assert len(part.sums) + len(part.steps) < len(fold(record(model, lambda: model(x))).steps)


def test_cuts_that_are_not_nested_are_right_too():
    model, (x,) = strategies.build(["chain", "chain"]), strategies.example()
    graph = trace(model, (x,))
    group = next(iter(graph.prunable().values()))
    scores = [torch.arange(group.size), torch.arange(group.size).flip(0)]
    plans = [
        plan(graph, {group.name: ratio}, lambda g, t, s=score: s)
        for score, ratio in zip(scores, (0.75, 0.5), strict=True)
    ]
    found, _ = outputs_of(model, x, plans, [group], graph.rescaled)
    for one, output in zip(plans, found, strict=True):
        with torch.no_grad():
            assert relative(output, prune(model, one, verify=False)(x)) <= 1e-9
