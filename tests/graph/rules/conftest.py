"""One operation at a time, without a model round it."""

import pytest

from flyweight.graph.identity import Field, Flow
from flyweight.graph.rules import RULES
from flyweight.graph.step import Ledger, Step


class Bench:
    """Runs single rules and tells what became of the identities."""

    def __init__(self):
        self.ledger = Ledger()

    def flow(self, *shape, axes=None, parameter=False):
        """Return a tensor with fresh identities on `axes` (every axis wider than one)."""
        wanted = [a for a, size in enumerate(shape) if size > 1] if axes is None else axes
        fields = [Field((axis,), self.ledger.identities.fresh(shape[axis])) for axis in wanted]
        return Flow(tuple(shape), tuple(fields), parameter)

    def run(self, op, /, *shapes, **arguments):
        """Return the result of operation `op` whose results have `shapes`."""
        return RULES[op](Step(op, "here", arguments, shapes, self.ledger))

    @property
    def frozen(self):
        return [why.split(":")[0] for _, why in self.ledger.identities.frozen]

    @property
    def frozen_ids(self):
        return sorted(i for ids, _ in self.ledger.identities.frozen for i in ids.tolist())

    @property
    def mixed(self):
        return sorted({i for ids, _ in self.ledger.identities.mixed for i in ids.tolist()})

    def together(self, left, right):
        """Whether identities at equal positions leave together, and only those."""
        labels = self.ledger.identities.components()
        return labels[left].tolist() == labels[right].tolist()


@pytest.fixture
def bench():
    return Bench()
