"""What a network and its cuts say of one batch, for little more than the network's own run."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from flyweight.errors import GraphError
from flyweight.graph.dispatch import evaluating
from flyweight.graph.model_graph import ModelGraph
from flyweight.pruning import PruningPlan, prune
from flyweight.replay.folding import Folded, fold
from flyweight.replay.layout import laid_out, maps_in
from flyweight.replay.suffix import Suffix, suffix_of
from flyweight.replay.tape import Tape, TapeError, record
from flyweight.sensitivity.agreement import Agreement
from flyweight.sensitivity.evaluator import Evaluator
from flyweight.sensitivity.scanned_cuts import BASELINE, Cut

Take = Callable[[Cut, Any], None]


class CutRunner:
    """Runs a network and what cuts make of it, batch by batch.

    Args:
        graph: Of the model.
        model: Is left as it is.
        judge: Runs networks on batches.
        plans: What every cut keeps.
    """

    def __init__(
        self,
        graph: ModelGraph,
        model: nn.Module,
        evaluator: Evaluator,
        plans: Mapping[Cut, PruningPlan],
    ) -> None:
        self.graph, self.model, self.evaluator, self.plans = graph, model, evaluator, plans
        self.first: Tape | None = None
        self.folded: Folded | None = None
        self.maps: frozenset[int] = frozenset()
        self.suffixes: dict[frozenset[str], Suffix] = {}
        self.needed: frozenset[int] = frozenset()

    def outputs(self, batch: Any, cuts: Collection[Cut], take: Take) -> None:
        """Hand what the dense network (`BASELINE`) and every cut say of a batch to `take`.

        Outputs hold until `take` returns.
        """
        with evaluating(self.model):
            tape = self._tape(batch)
            if tape is None:
                self._begin(self.evaluator.forward(self.model, batch), take)
                parts, whole = dict[frozenset[str], list[Cut]](), list(cuts)
            else:
                self._begin(tape.outputs_with({}), take)
                parts, whole = self._sorted(cuts)
            values = self._values(tape) if parts else {}
            for groups, together in parts.items():
                self._in_part(tape, values, groups, together, take)
        for cut in whole:
            small = prune(self.model, self.plans[cut], verify=False)
            with evaluating(small):
                take(cut, self.evaluator.forward(small, batch))

    def _begin(self, outputs: Any, take: Take) -> None:
        if isinstance(self.evaluator, Agreement):
            self.evaluator.begin(outputs)
        take(BASELINE, outputs)

    def _values(self, tape: Tape | None) -> Mapping[int, Tensor]:
        """Return what parts of a run begin with."""
        if tape is None or self.folded is None:
            return {}
        return laid_out({**tape.values, **self.folded.values}, self.maps)

    def _in_part(
        self,
        tape: Tape | None,
        values: Mapping[int, Tensor],
        groups: frozenset[str],
        cuts: Sequence[Cut],
        take: Take,
    ) -> None:
        if tape is None:
            raise GraphError("a part of a run needs the run")
        keeps = [self.plans[cut].keep for cut in cuts]
        for place, changed in self.suffixes[groups].runs(values, keeps):
            take(cuts[place], tape.outputs_with(changed))

    def _sorted(self, cuts: Iterable[Cut]) -> tuple[dict[frozenset[str], list[Cut]], list[Cut]]:
        """Return the cuts that a part of the run shows, by their groups, and the others."""
        parts: dict[frozenset[str], list[Cut]] = {}
        whole: list[Cut] = []
        for cut in cuts:
            one = self.plans[cut]
            if one.exact:
                parts.setdefault(frozenset(one.groups), []).append(cut)
            else:
                whole.append(cut)
        return parts, whole

    def _tape(self, batch: Any) -> Tape | None:
        """Return the run on a batch with what its parts need; None where it has no fixed parts."""

        def run() -> Any:
            return self.evaluator.forward(self.model, batch)

        try:
            if self.first is None:
                self._prepare(record(self.model, run))
            tape = record(self.model, run, self.needed)
        except TapeError:
            return None
        return tape if self.first is not None and tape.same_as(self.first) else None

    def _prepare(self, tape: Tape) -> None:
        self.first = Tape(tape.steps, tape.stored, {}, tape.outputs)
        self.folded = fold(tape)
        self.maps = maps_in(self.folded.steps)
        for groups in self._sorted(self.plans)[0]:
            found = [self.graph.groups[name] for name in sorted(groups)]
            self.suffixes[groups] = suffix_of(tape, self.folded, found)
        self.needed = frozenset().union(*(part.needed for part in self.suffixes.values()))
