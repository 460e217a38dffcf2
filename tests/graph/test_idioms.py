"""Small networks as people write them: cut by half, and the same in both modes and at two sizes.

The networks and the checks are those of the coverage benchmark, which zeroes and compares
without flyweight.
"""

import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

import flyweight as fw

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
from coverage_case import in_precision, randomise
from coverage_checks import Checks
from coverage_idioms import cases
from coverage_oracle import zero_by_plan

sys.path.pop(0)

OPEN = {"window attention", "numbers that are equal by chance"}
"""What flyweight does not cut rightly yet."""
CASES = {case.name: case for case in cases() if case.name not in OPEN}


class Phases:
    """Keeps the columns that the checks report."""

    def __init__(self) -> None:
        self.columns: dict[str, Any] = {}

    def report(self, **columns: Any) -> None:
        self.columns |= columns

    def __call__(self, phase: str) -> AbstractContextManager[None]:
        return nullcontext()


def test_there_are_many_idioms() -> None:
    assert len(CASES) >= 60


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", CASES)
def test_half_of_every_group_leaves_exactly(name: str) -> None:
    torch.manual_seed(0)
    case, phases = CASES[name], Phases()
    model = case.build().eval().double()
    args, kwargs = in_precision(case.call(case.batch, case.side), torch.float64)
    randomise(model, args, kwargs)
    graph = fw.trace(model, args, kwargs)
    plan = fw.plan(graph, 0.5, inexact=False)
    checks = Checks(case, model, 0, phases)
    checks.look()
    small = fw.prune(model, plan)
    zero_by_plan(model, plan)
    checks.compare(small, effect=bool(plan.groups))
    before, after = (sum(p.numel() for p in net.parameters()) for net in (model, small))
    assert after < 0.95 * before, {group.reason for group in graph.groups.values()}
    assert "no training" not in phases.columns["checked"]
