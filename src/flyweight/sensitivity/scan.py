"""Sensitivity in one pass over the data: what each layer's channels are worth to the metric.

The order of loops is data outside, cuts inside. A batch is decoded once, the dense network runs on
it once, and for every cut only what changes runs again (`suffix`). Every cut has a metric of its
own, fed with what it says of each batch; so the numbers are those of evaluating every pruned
network by itself.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypedDict, Unpack

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from flyweight.engine.display import progress_over
from flyweight.errors import DataError, GraphError, PlanError, counted
from flyweight.graph.dispatch import evaluating
from flyweight.graph.model_graph import ModelGraph
from flyweight.graph.stored import held_tensors
from flyweight.pruning import PruningPlan, plan, prune
from flyweight.pruning.criteria import Criterion
from flyweight.sensitivity.curves import Point, Sensitivity
from flyweight.sensitivity.folding import Folded, fold
from flyweight.sensitivity.journal import BASELINE, Journal, States
from flyweight.sensitivity.suffix import Suffix, suffix_of
from flyweight.sensitivity.tape import Tape, TapeError, record
from flyweight.tasks.task import Metric

RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
Cut = tuple[str, float]
Score = Callable[[Any, Any], Tensor]
"""From a network's outputs and a batch to one number per picture; larger is better."""


class Judge(Protocol):
    """What turns a network's outputs into a metric; every `Task` does."""

    primary: str

    def forward(self, model: nn.Module, batch: Any) -> Any:
        """Return the raw outputs of `model` for `batch`."""

    def decode(self, outputs: Any, batch: Any) -> Any:
        """Turn raw outputs into predictions."""

    def metric(self) -> Metric:
        """Return a fresh metric."""


@dataclass(frozen=True)
class Cuts:
    """Which cuts to try.

    Attributes:
        ratios: Shares of a layer's channels to remove.
        layers: Which layers, by any name that a plan understands; None is every group that can be
            cut.
        criterion: How channels are chosen.
        local: Whether the named layer alone chooses, as the originals' did.
        inexact: Whether groups whose channels an operation mixes are tried; each of their cuts
            costs a whole run.
        aliases: Other names of parameters.
    """

    ratios: Sequence[float] = RATIOS
    layers: Sequence[str] | None = None
    criterion: str | Criterion = "l1_norm"
    local: bool = False
    inexact: bool = False
    aliases: Mapping[str, str] | None = None

    def plans(self, graph: ModelGraph) -> dict[Cut, PruningPlan]:
        """Return a plan for every cut; ratios that remove nothing are left out.

        Raises:
            PlanError: A layer, a ratio or the criterion cannot be meant, or nothing is to be cut.
        """
        layers = self.layers
        if layers is None:
            layers = [g.name for g in graph.groups.values() if g.reason is None]
            layers = [n for n in layers if self.inexact or graph.groups[n].exact]
        made = {
            (layer, round(float(ratio), 6)): plan(
                graph,
                {layer: ratio},
                self.criterion,
                local=self.local,
                inexact=self.inexact,
                aliases=self.aliases,
            )
            for layer in layers
            for ratio in sorted(self.ratios)
        }
        found = {cut: one for cut, one in made.items() if one.groups}
        if not found:
            raise PlanError(
                "A scan must have something to cut. Received "
                f"{counted(len(layers), 'layer')} and ratios {tuple(self.ratios)} that remove no "
                "channel. Give larger ratios."
            )
        return found


class ScanOptions(TypedDict, total=False):
    """What else `scan` takes: the fields of `Cuts` besides the ratios, and these two.

    Attributes:
        data: A digest of the data, where one is known; batches are compared in any case.
        progress: Draw a bar on stderr where that is a terminal.
    """

    layers: Sequence[str] | None
    criterion: str | Criterion
    local: bool
    inexact: bool
    aliases: Mapping[str, str] | None
    data: str
    progress: bool


def scan(
    graph: ModelGraph,
    model: nn.Module,
    batches: Iterable[Any],
    metric: Judge | Score,
    *,
    ratios: Sequence[float] = RATIOS,
    save_to: str | Path | None = None,
    **options: Unpack[ScanOptions],
) -> Sensitivity:
    """Return how the metric falls when each layer loses channels, in one pass over `batches`.

    Args:
        graph: `trace(model, ...)`.
        model: What was traced; it is left as it was.
        batches: Each is what `metric` understands. For a function, a tuple whose first item is the
            network's input.
        metric: A task; or a function of outputs and batch that returns a number per picture, whose
            mean over all pictures is the metric.
        ratios: Shares of each layer's channels to remove.
        save_to: File for the curves (JSON). Beside it lies, while the scan lasts, a folder with
            what every batch contributed: a scan that was cut off goes on from there.
        **options: See `ScanOptions` and `Cuts`.

    Raises:
        PlanError: A cut cannot be meant.
        DataError: There are no batches, or the folder is of another scan; the difference is named.
    """
    data, progress = options.pop("data", ""), options.pop("progress", False)
    wanted = Cuts(ratios, **options)  # type: ignore[misc]
    judge = _judge_of(metric)
    plans = wanted.plans(graph)
    made_from = {
        "graph": graph.fingerprint,
        "weights": _digest(tensor for _, tensor, _ in held_tensors(model)),
        "data": data,
        "settings": hashlib.sha256(repr(_keeps(plans)).encode()).hexdigest()[:16],
    }
    target = None if save_to is None else Path(save_to)
    journal = Journal(target, made_from)
    work = _Scan(graph, model, judge, plans)
    count = 0
    total = len(batches) if isinstance(batches, Sized) else None
    for place, batch in enumerate(progress_over(batches, "scan", total, show=progress)):
        digest = _digest(_tensors(batch))
        if not journal.has(place, digest):
            journal.add(place, digest, work.states(batch))
        count = place + 1
    if not count:
        raise DataError("A scan must have pictures. Received no batch. Check the data.")
    values = {cut: one[judge.primary] for cut, one in _merged(judge, journal.all(count)).items()}
    curves: dict[str, tuple[Point, ...]] = {}
    for layer, ratio in plans:
        curves[layer] = (*curves.get(layer, ()), Point(ratio, values[layer, ratio]))
    result = Sensitivity(
        metric=judge.primary,
        baseline=values[BASELINE],
        curves=curves,
        criterion=wanted.criterion,
        local=wanted.local,
        made_from=made_from,
        graph=graph,
    )
    if target is not None:
        result.save(target)
    journal.close()
    return result


def _keeps(plans: Mapping[Cut, PruningPlan]) -> list[Any]:
    return [(cut, sorted(one.keep.items())) for cut, one in sorted(plans.items())]


def _merged(judge: Judge, parts: Iterable[States]) -> dict[Cut, dict[str, float]]:
    metrics: dict[Cut, Metric] = {}
    for states in parts:
        for cut, state in states.items():
            if cut not in metrics:
                metrics[cut] = judge.metric()
            metrics[cut].merge(state)
    return {cut: metric.compute() for cut, metric in metrics.items()}


class _Scan:
    """What every batch goes through."""

    def __init__(
        self,
        graph: ModelGraph,
        model: nn.Module,
        judge: Judge,
        plans: Mapping[Cut, PruningPlan],
    ) -> None:
        self.graph, self.model, self.judge, self.plans = graph, model, judge, plans
        self.first: Tape | None = None
        self.folded: Folded | None = None
        self.suffixes: dict[frozenset[str], Suffix] = {}
        self.needed: frozenset[int] = frozenset()

    def states(self, batch: Any) -> States:
        """Return what fresh metrics collect of one batch, for every cut."""
        found: States = {}

        def judged(cut: Cut, outputs: Any) -> None:
            metric = self.judge.metric()
            metric.update(self.judge.decode(outputs, batch), batch)
            found[cut] = metric.state()

        with evaluating(self.model):
            tape = self._tape(batch)
            if tape is None:
                judged(BASELINE, self.judge.forward(self.model, batch))
                parts, whole = dict[frozenset[str], list[Cut]](), list(self.plans)
            else:
                judged(BASELINE, tape.outputs_with({}))
                parts, whole = self._sorted()
            for groups, cuts in parts.items():
                self._in_part(tape, groups, cuts, judged)
        for cut in whole:
            small = prune(self.model, self.plans[cut], verify=False)
            with evaluating(small):
                judged(cut, self.judge.forward(small, batch))
        return {cut: found[cut] for cut in (BASELINE, *self.plans)}

    def _in_part(
        self,
        tape: Tape | None,
        groups: frozenset[str],
        cuts: Sequence[Cut],
        judged: Callable[[Cut, Any], None],
    ) -> None:
        if tape is None or self.folded is None:
            raise GraphError("a part of a run needs the run")
        values = {**tape.values, **self.folded.values}
        keeps = [self.plans[cut].keep for cut in cuts]
        for place, changed in self.suffixes[groups].runs(values, keeps):
            judged(cuts[place], tape.outputs_with(changed))

    def _sorted(self) -> tuple[dict[frozenset[str], list[Cut]], list[Cut]]:
        """Return the cuts that a part of the run shows, by their groups, and the others."""
        parts: dict[frozenset[str], list[Cut]] = {}
        whole: list[Cut] = []
        for cut, one in self.plans.items():
            if one.exact:
                parts.setdefault(frozenset(one.groups), []).append(cut)
            else:
                whole.append(cut)
        return parts, whole

    def _tape(self, batch: Any) -> Tape | None:
        """Return the run on a batch with what its parts need; None where it has no fixed parts."""

        def run() -> Any:
            return self.judge.forward(self.model, batch)

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
        for groups in self._sorted()[0]:
            found = [self.graph.groups[name] for name in sorted(groups)]
            self.suffixes[groups] = suffix_of(tape, self.folded, found)
        self.needed = frozenset().union(*(part.needed for part in self.suffixes.values()))


class _Mean:
    """The mean of a number per picture, as a judge."""

    primary = "mean"

    def __init__(self, score: Score) -> None:
        self.score = score

    def forward(self, model: nn.Module, batch: Any) -> Any:
        """Run the model on the first item of a batch."""
        return model(batch[0] if isinstance(batch, (tuple, list)) else batch)

    def decode(self, outputs: Any, batch: Any) -> Tensor:
        """Return the numbers of the pictures."""
        return torch.as_tensor(self.score(outputs, batch)).double().reshape(-1)

    def metric(self) -> "_MeanMetric":
        """Return a fresh metric."""
        return _MeanMetric()


class _MeanMetric:
    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def update(self, predictions: Tensor, batch: Any) -> None:
        """Add the numbers of a batch."""
        self.total += float(predictions.sum())
        self.count += len(predictions)

    def compute(self) -> dict[str, float]:
        """Return the mean."""
        return {"mean": self.total / max(self.count, 1)}

    def state(self) -> tuple[float, int]:
        """Return sum and count."""
        return self.total, self.count

    def merge(self, state: tuple[float, int]) -> None:
        """Add another metric's."""
        self.total += state[0]
        self.count += state[1]


def _judge_of(metric: Judge | Score) -> Judge:
    if hasattr(metric, "decode"):
        return metric  # type: ignore[return-value]
    return _Mean(metric)


def _tensors(batch: Any) -> Iterator[Tensor]:
    images = getattr(batch, "images", batch)
    yield from (leaf for leaf in tree_leaves(images) if isinstance(leaf, Tensor))


def _digest(tensors: Iterable[Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for tensor in tensors:
        plain = tensor.detach().cpu().contiguous()
        digest.update(str((plain.dtype, tuple(plain.shape))).encode())
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
