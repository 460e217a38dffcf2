import itertools
import random

import pytest

from flyweight.errors import PlanError
from flyweight.graph.cost import AxisSize
from flyweight.planning.knapsack import Option, Program, cheapest, expanded, solved


@pytest.mark.parametrize("seed", range(5))
def test_any_cost_of_a_pair_is_solved_to_the_optimum(seed):
    draw = random.Random(seed)
    options = {
        group: [Option(keep, draw.random()) for keep in range(1, 5)] for group in ("a", "b", "c")
    }
    singles = {group: [draw.random() for _ in range(4)] for group in options}
    pairs = {
        pair: [[draw.random() for _ in range(4)] for _ in range(4)]
        for pair in (("a", "b"), ("c", "b"), ("b", "a"))
    }
    program = Program(options)
    program.fixed = 0.5
    for group, costs in singles.items():
        program.add_each(group, costs)
    for (one, other), costs in pairs.items():
        program.add_pairs(one, other, costs)
    program.add(("a", "c"), 0.01)
    program.add(("b", "b"), 0.02)

    def cost(chosen):
        place = {group: options[group].index(option) for group, option in chosen.items()}
        keep = {group: option.keep for group, option in chosen.items()}
        return (
            0.5
            + sum(costs[place[group]] for group, costs in singles.items())
            + sum(costs[place[one]][place[other]] for (one, other), costs in pairs.items())
            + 0.01 * keep["a"] * keep["c"]
            + 0.02 * keep["b"] ** 2
        )

    every = [
        dict(zip(options, chosen, strict=True)) for chosen in itertools.product(*options.values())
    ]
    costs = sorted(map(cost, every))
    limit = costs[len(costs) // 3] + 1e-6
    found = solved(program, limit)
    assert cost(found) <= limit
    best = min(sum(o.loss for o in chosen.values()) for chosen in every if cost(chosen) <= limit)
    assert sum(option.loss for option in found.values()) == pytest.approx(best, abs=1e-6)
    assert cost(cheapest(program)) == pytest.approx(costs[0], abs=1e-6)


def test_what_cannot_be_solved():
    program = Program({"a": [Option(1, 0.0), Option(2, 0.0)]})
    program.add(("a",), 1.0)
    with pytest.raises(PlanError, match=r"can be solved for\. Received 0\.5"):
        solved(program, 0.5)


def test_products_are_multiplied_out():
    reads, makes = AxisSize(3, (("a", 2),)), AxisSize(0, (("b", 1), ("c", 1)))
    found = expanded((reads, makes), {"a": 4, "b": 5, "c": 6}, frozenset("ab"))
    assert found == {("b",): 3, (): 18, ("a", "b"): 2, ("a",): 12}
