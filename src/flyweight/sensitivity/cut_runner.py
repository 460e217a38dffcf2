"""Outputs of a network and of all its cuts on one batch, for little more than one run.

The network runs once. An exact cut then executes only the part of that run that it changes
(`replay.suffix`). A cut that is not exact, and a network whose runs cannot be executed in parts,
takes a whole run of the pruned network.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from flyweight.graph.dispatch import evaluating
from flyweight.graph.model_graph import ModelGraph
from flyweight.graph.program import OUTSIDE, Run
from flyweight.graph.recorder import module_paths
from flyweight.graph.recording import private_copy
from flyweight.pruning import PruningPlan, prune
from flyweight.replay.folding import Folded, fold
from flyweight.replay.layout import laid_out, maps_in
from flyweight.replay.rerun import ReplayError, record
from flyweight.replay.suffix import Suffix, suffix_of
from flyweight.sensitivity.agreement import Agreement
from flyweight.sensitivity.evaluator import Evaluator
from flyweight.sensitivity.scanned_cuts import BASELINE, LayerCut

Take = Callable[[LayerCut, Any], None]
"""Receives a cut and the outputs of the network after it."""
_Groups = frozenset[str]


@dataclass(frozen=True, eq=False)
class _Program:
    """A recorded run, ready to be executed in parts.

    Attributes:
        run: Without values. Batches of one size have the same run.
        folded: Its operations without normalisations.
        maps: Numbers of feature maps and weights to lay out with channels last.
        suffixes: The part that changes, by the groups that are cut.
        needed: Numbers of the tensors that the parts begin with.
    """

    run: Run
    folded: Folded
    maps: frozenset[int]
    suffixes: Mapping[_Groups, Suffix]
    needed: frozenset[int]


class CutRunner:
    """Runs a network and its cuts, batch by batch.

    Args:
        graph: Of the model.
        model: It is left as it is: a private copy that shares its parameters is run.
        evaluator: Runs networks on batches.
        plans: What every cut keeps.
    """

    def __init__(
        self,
        graph: ModelGraph,
        model: nn.Module,
        evaluator: Evaluator,
        plans: Mapping[LayerCut, PruningPlan],
    ) -> None:
        self.graph, self.model, self.evaluator, self.plans = graph, model, evaluator, plans
        self._copy = private_copy(model, values=True)
        self._first: _Program | None = None
        self._other: _Program | None = None
        self._divisible = True

    def outputs(self, batch: Any, cuts: Collection[LayerCut], take: Take) -> None:
        """Give the outputs of the dense network (`BASELINE`) and of every cut to `take`.

        Outputs hold until `take` returns.
        """
        in_parts, whole = self._sorted(cuts)
        with evaluating(self.model):
            run, program = self._recorded(batch)
            if run is None or program is None:
                self._begin(self.evaluator.forward(self._copy, batch), take)
                whole = list(cuts)
            else:
                self._begin(run.outputs_with({}), take)
                self._take_parts(run, program, in_parts, take)
        for cut in whole:
            small = prune(self.model, self.plans[cut], verify=False)
            with evaluating(small):
                take(cut, self.evaluator.forward(small, batch))

    def _begin(self, outputs: Any, take: Take) -> None:
        if isinstance(self.evaluator, Agreement):
            self.evaluator.begin(outputs)
        take(BASELINE, outputs)

    def _take_parts(
        self, run: Run, program: _Program, cuts: Mapping[_Groups, Sequence[LayerCut]], take: Take
    ) -> None:
        if not cuts:
            return
        values = laid_out({**run.values, **program.folded.values}, program.maps)
        for groups, together in cuts.items():
            keeps = [self.plans[cut].keep for cut in together]
            for place, changed in program.suffixes[groups].runs(values, keeps):
                take(together[place], run.outputs_with(changed))

    def _sorted(
        self, cuts: Iterable[LayerCut]
    ) -> tuple[dict[_Groups, list[LayerCut]], list[LayerCut]]:
        """Return the cuts that a part of a run answers, by their groups, and the other cuts."""
        in_parts: dict[_Groups, list[LayerCut]] = {}
        whole: list[LayerCut] = []
        for cut in cuts:
            one = self.plans[cut]
            if one.exact:
                in_parts.setdefault(frozenset(one.groups), []).append(cut)
            else:
                whole.append(cut)
        return in_parts, whole

    def _recorded(self, batch: Any) -> tuple[Run | None, _Program | None]:
        """Return the run on a batch with what its parts need; nothing if it has no fixed parts."""
        if not self._divisible:
            return None, None
        try:
            if self._first is None:
                self._divisible = False  # Unless the following lines succeed.
                self._first = self._prepared(self._record(batch, frozenset()))
                self._divisible = True
            run = self._record(batch, self._first.needed)
            return run, self._program_of(run)
        except ReplayError:
            return None, None

    def _record(self, batch: Any, keep: frozenset[int]) -> Run:
        with module_paths(self._copy, OUTSIDE) as path:
            return record(self._copy, lambda: self.evaluator.forward(self._copy, batch), keep, path)

    def _program_of(self, run: Run) -> _Program | None:
        """Return the parts of a run; nothing if it took another course than the first one."""
        first = self._first
        if first is None or not run.same_as(first.run):
            return None
        for known in (first, self._other):
            if known is not None and run.same_as(known.run, constants=True):
                return known
        # Sizes are written into calls. A smaller last batch has parts of its own; they need the
        # same tensors, because these depend on the course of the run alone.
        self._other = self._prepared(run)
        return self._other

    def _prepared(self, run: Run) -> _Program:
        folded = fold(run)
        suffixes = {
            names: suffix_of(
                run,
                folded,
                [self.graph.groups[name] for name in sorted(names)],
                self.graph.rescaled,
            )
            for names in self._sorted(self.plans)[0]
        }
        needed = frozenset().union(*(part.needed for part in suffixes.values()))
        light = replace(run, values={})
        return _Program(light, folded, maps_in(folded.steps), suffixes, needed)
