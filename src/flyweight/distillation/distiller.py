"""Distiller: the losses of a student against its teachers, in any training loop."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from flyweight.config.distilling import AUTO
from flyweight.distillation.adaptors import fit_widener_
from flyweight.distillation.capture import Capture
from flyweight.distillation.distillation_plan import (
    DistillationPlan,
    OutputPair,
    Tap,
    plan_named,
    plan_taps,
)
from flyweight.distillation.fit_of_networks import kind_of_outputs, require_fit, yolo_classes
from flyweight.distillation.seen_tensors import SeenNetwork, see_network
from flyweight.distillation.similarity import linear_cka
from flyweight.distillation.strategies import Strategy, Term, strategy_for, without_features
from flyweight.distillation.teacher import Teacher, evaluating, plain_copy, run_teacher
from flyweight.distillation.teacher_cache import Named, identity_of
from flyweight.distillation.terms import (
    FEATURE_LOSSES,
    OUTPUT_LOSSES,
    PAIR_LOSSES,
    Context,
    as_maps,
    compared,
    modules_for,
    require_losses,
)
from flyweight.distillation.truth import Truth
from flyweight.errors import ConfigError, TrainingError
from flyweight.graph.entry import plain_module

TapNames = Sequence[str | tuple[str, str]]
Taught = tuple[Named, Named]
"""Features of a teacher by operation, and its outputs by place."""
_USUAL_SIDE = 224


@dataclass(frozen=True, eq=False)
class _Guide:
    """One teacher, and what it is compared at.

    Attributes:
        teacher: The teacher.
        plan: What can be compared.
        used: The taps that losses use.
        outputs: Places of the teacher's outputs that losses use.
        own: Modules that learn, by tap.
        identity: Short name of what the teacher computes, for its cache.
    """

    teacher: Teacher
    plan: DistillationPlan
    used: tuple[Tap, ...]
    outputs: tuple[str, ...]
    own: nn.ModuleDict
    identity: str

    @property
    def model(self) -> nn.Module:
        return plain_module(self.teacher.model)


@dataclass(frozen=True, eq=False)
class _Seen:
    """The tensors of one run of both networks."""

    ours: dict[str, Tensor]
    theirs: dict[str, Tensor]
    our_outputs: dict[str, Tensor]
    their_outputs: dict[str, Tensor]


class Distiller:
    """Losses of a student against one or several teachers.

    In a loop, call the student as before, then `loss(images)`:

        distiller = fw.Distiller(student, teacher)
        optimizer = torch.optim.SGD([*student.parameters(), *distiller.parameters()], lr=0.01)
        loss = criterion(student(images), labels) + distiller.loss(images)

    Taps are chosen on the recorded graphs; where widths differ, an adaptor widens the student's
    features. Neither network is changed: hooks on the student see its runs until `close`.

    Args:
        student: Any module.
        teacher: Any module, a `Teacher`, or several of them, whose losses are averaged.
        taps: Names of operations or modules to compare instead of the automatic choice; a pair
            where the teacher's has another name.
        strategy: A `Strategy` or its name in `STRATEGIES`; None chooses by the outputs.
        example: Images like those of the training, `(n, 3, h, w)`; by default of 224 x 224.
        watch: Register the hooks at once; False where `watching` is used instead.

    Attributes:
        plans: What is compared, for each teacher.
        strategy: The losses.
        modules: Adaptors and other modules that learn; None if there are none.

    Raises:
        ConfigError: The networks do not fit the strategy.
        PlanError: A named tap does not exist.
        GraphError: A network does not run on the example.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | Teacher | Sequence[nn.Module | Teacher],
        taps: TapNames | None = None,
        strategy: Strategy | str | None = None,
        *,
        example: Tensor | None = None,
        watch: bool = True,
    ) -> None:
        plain, teachers = plain_module(student), _teachers(teacher)
        if any(plain_module(one.model) is plain for one in teachers):
            raise ConfigError(
                "A teacher must be another module than its student. Received one module as both. "
                "Give a copy: copy.deepcopy(student)"
            )
        images = _example(plain) if example is None else example
        seen = see_network(plain, images)
        self.strategy = strategy_for(strategy, kind_of_outputs(plain, seen))
        require_losses(self.strategy)
        self._num_classes = yolo_classes(plain, seen)
        planned = [(one, _plan(one, seen, images, taps)) for one in teachers]
        if self.strategy.name == AUTO and not all(plan.taps for _, plan in planned):
            self.strategy = without_features(self.strategy)
        guides = [self._guide(plain, one, plan) for one, plan in planned]
        self._guides = tuple(guides)
        place = next((one.device for one in plain.parameters()), torch.device("cpu"))
        modules = nn.ModuleList(guide.own for guide in guides).to(place)
        self.modules = modules if next(modules.parameters(), None) is not None else None
        self._capture = Capture(tap.student for guide in guides for tap in guide.used)
        if watch:
            self._capture.attach(plain)

    def _guide(self, student: nn.Module, teacher: Teacher, plan: DistillationPlan) -> _Guide:
        require_fit(student, plain_module(teacher.model), plan, self.strategy)
        own, used = nn.ModuleDict(), []
        for tap in dict.fromkeys((*plan.taps, *(one.tap for one in plan.crossings))):
            terms = list(self._terms_at(tap, plan))
            used += [tap] if terms else []
            found = modules_for(tap, terms)
            if len(found):
                own[key_of(tap)] = found
        on_outputs = not all(term.on_features for term in self.strategy.terms)
        outputs = tuple(pair.teacher.place for pair in plan.outputs) if on_outputs else ()
        names = [*(_FEATURE + tap.teacher.operation for tap in used), *outputs]
        identity = "" if teacher.cache is None else identity_of(teacher.model, names)
        return _Guide(teacher, plan, tuple(used), outputs, own, identity)

    def _terms_at(self, tap: Tap, plan: DistillationPlan) -> Iterator[Term]:
        for term in self.strategy.terms:
            crosses = term.on == "crossed" and any(one.tap == tap for one in plan.crossings)
            if tap in plan.features(term.places) if term.on_features else crosses:
                yield term

    @property
    def plans(self) -> tuple[DistillationPlan, ...]:
        """What is compared, for each teacher."""
        return tuple(guide.plan for guide in self._guides)

    @property
    def teachers(self) -> tuple[nn.Module, ...]:
        """The teachers' networks."""
        return tuple(guide.teacher.model for guide in self._guides)

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters of the adaptors, for the optimizer."""
        return iter(()) if self.modules is None else self.modules.parameters()

    def cache_plans(self, images: Tensor) -> list[str]:
        """Return what the caches of the teachers will hold, one sentence each.

        Args:
            images: Of the student; the first one is taken.
        """
        found = []
        for guide in self._guides:
            if guide.teacher.cache is not None:
                results = _run(guide, guide.teacher.images(images[:1]))
                size = sum(one.nbytes for one in results.values())
                found.append(guide.teacher.cache.plan(size))
        return found

    def close(self) -> None:
        """Remove the hooks from the student."""
        self._capture.detach()

    def watching(self, student: nn.Module) -> AbstractContextManager[Any]:
        """Watch the runs of a student within a context; `loss` may follow it."""
        return self._capture.on(plain_module(student))

    def loss(
        self, images: Tensor, truth: Truth | None = None, taught: Sequence[Taught] | None = None
    ) -> Tensor:
        """Return the weighted sum of the losses, for the student's run on these images.

        Args:
            images: What the student was just called with.
            truth: Labels or boxes, for strategies that need them (dkd, fgd), and a mask.
            taught: From `teach`, for these images; None runs the teachers now.

        Returns:
            A scalar with gradients to the student and the adaptors.

        Raises:
            TrainingError: The student has not run since the last call, or not on these images.
        """
        return torch.stack(tuple(self.terms(images, truth, taught).values())).sum()

    def teach(self, images: Tensor) -> list[Taught]:
        """Run the teachers on a student's images, and return what `terms` takes.

        Before the student's run it costs least: with the student's activations in memory, each
        layer of the teacher requests its own from the system, which took as long as its operations.
        """
        return [_taught(guide, images) for guide in self._guides]

    def terms(
        self, images: Tensor, truth: Truth | None = None, taught: Sequence[Taught] | None = None
    ) -> dict[str, Tensor]:
        """Return the weighted losses by name; arguments and errors are those of `loss`."""
        features, outputs = _taken(self._capture, images)
        size = (int(images.shape[-2]), int(images.shape[-1]))
        context = Context(self.strategy, self._num_classes, size, truth or Truth())
        totals: dict[str, Tensor] = {}
        with torch.autocast(images.device.type, enabled=False):
            found = self.teach(images) if taught is None else taught
            for guide, (theirs, their_outputs) in zip(self._guides, found, strict=True):
                seen = _Seen(features, theirs, outputs, their_outputs)
                for term in self.strategy.terms:
                    share = term.weight / len(self._guides)
                    value = share * _value(term, guide, seen, context)
                    name = term.loss
                    totals[name] = totals[name] + value if name in totals else value
        return totals

    def similarity(self, student: nn.Module, images: Tensor) -> dict[str, float]:
        """Return how alike the features are at each tap of the first teacher.

        Args:
            student: The student; it runs in evaluation mode, without gradients.
            images: `(n, 3, h, w)`.

        Returns:
            `similarity.linear_cka` by the name of the tap: 1 is equal up to rotation and scale.
        """
        guide = self._guides[0]
        taps = guide.plan.taps
        return {
            tap.name: linear_cka(one, other)
            for tap, one, other in self._pairs(guide, taps, student, images)
        }

    def fit_adaptors_(self, student: nn.Module, images: Tensor) -> None:
        """Give the layers that widen the weights that are nearest to the teachers' features.

        A pruned student is near its teacher before training, and so are its adaptors then.

        Args:
            student: The student; it runs in evaluation mode, without gradients.
            images: `(n, 3, h, w)`, of the training.
        """
        for guide in self._guides:
            taps = [tap for tap in guide.used if "widen" in _own(tap, guide)]
            for tap, one, other in self._pairs(guide, taps, student, images) if taps else ():
                fit_widener_(_own(tap, guide)["widen"], one, other)

    def _pairs(
        self, guide: _Guide, taps: Sequence[Tap], student: nn.Module, images: Tensor
    ) -> Iterator[tuple[Tap, Tensor, Tensor]]:
        """Yield taps with the features of both networks as maps of the teacher's size."""
        plain = plain_module(student)
        with (
            Capture(tap.student for tap in taps).on(plain) as capture,
            torch.no_grad(),
            evaluating(plain),
        ):
            student(images)
        self._capture.clear()  # It saw this run, too, where its hooks are registered.
        ours, _ = _taken(capture, images)
        theirs = _run(guide, guide.teacher.images(images), taps)
        for tap in taps:
            one = as_maps(ours[tap.student.operation], tap.student)
            other = as_maps(theirs[_FEATURE + tap.teacher.operation], tap.teacher)
            yield tap, compared(one, other, nn.ModuleDict(), ""), other


def key_of(tap: Tap) -> str:
    """Return place and name of a tap as a key of modules, which has no dots."""
    return f"{tap.place}/{tap.name}".replace(".", "/")


def _teachers(
    given: nn.Module | Teacher | Sequence[nn.Module | Teacher],
) -> list[Teacher]:
    several = list(given) if isinstance(given, (list, tuple)) else [given]
    if not several:
        raise ConfigError("A student must have at least one teacher. Received none. Give one.")
    return [one if isinstance(one, Teacher) else Teacher(one) for one in several]  # type: ignore[arg-type]


def _example(model: nn.Module) -> Tensor:
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    channels = 3 if first is None else first.in_channels
    place = next((one.device for one in model.parameters()), torch.device("cpu"))
    return torch.zeros(1, channels, _USUAL_SIDE, _USUAL_SIDE, device=place)


def _plan(
    teacher: Teacher, student: SeenNetwork, images: Tensor, taps: TapNames | None
) -> DistillationPlan:
    theirs = see_network(teacher.model, _like(teacher.images(images), teacher.model))
    return plan_taps(student, theirs) if taps is None else plan_named(student, theirs, taps)


def _like(images: Tensor, model: nn.Module) -> Tensor:
    place = next((one.device for one in model.parameters()), images.device)
    return images.to(place)


def _taken(capture: Capture, images: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the features and outputs of a student's last run, once, if it was on these images."""
    if capture.returned is None:
        raise TrainingError(
            "The student must run before its loss is computed. Received no run since the last "
            "loss. Call student(images) first, then distiller.loss(images)."
        )
    features, outputs = capture.features, capture.outputs()
    capture.clear()
    count = next((len(one) for one in (*features.values(), *outputs.values())), len(images))
    if count != len(images):
        raise TrainingError(
            "The loss must be of the images that the student has just run on. Received "
            f"{len(images)} images after a run on {count}. Give the same images to both."
        )
    return features, outputs


def _taught(guide: _Guide, images: Tensor) -> Taught:
    """Return a teacher's features by operation and its outputs by place, for a student's images."""
    teacher, given = guide.teacher, guide.teacher.images(images)
    if teacher.cache is None:
        found = _run(guide, given)
    else:
        halves = teacher.computes_halves(given.device)
        name = f"{guide.identity}_{'bf16' if halves else '32'}"
        found = teacher.cache.results(name, given, partial(_run, guide))
    features = {
        name.removeprefix(_FEATURE): value
        for name, value in found.items()
        if name.startswith(_FEATURE)
    }
    return features, found


def _run(guide: _Guide, images: Tensor, taps: Sequence[Tap] | None = None) -> Named:
    """Run a teacher on its images; return its features, and its outputs where losses use them.

    Args:
        guide: The teacher.
        images: As it takes them.
        taps: Whose features; by default those that losses use.
    """
    with Capture(tap.teacher for tap in (guide.used if taps is None else taps)).on(
        guide.model
    ) as capture:
        run_teacher(guide.teacher.model, images, guide.teacher.precision)
    outputs = capture.outputs()
    return {
        **{_FEATURE + name: plain_copy(value) for name, value in capture.features.items()},
        **{place: plain_copy(outputs[place]) for place in guide.outputs if place in outputs},
    }


_FEATURE = "feature "
"""Before the operation of a feature, where outputs are called by their places."""


def _value(term: Term, guide: _Guide, seen: _Seen, context: Context) -> Tensor:
    if term.on == "outputs":
        return _of_outputs(term, guide.plan.outputs, seen, context)
    if term.on == "crossed":
        return _of_crossed(guide, seen, context)
    if term.loss in PAIR_LOSSES:
        return _of_pairs(term, guide, seen)
    losses = []
    for tap in guide.plan.features(term.places):
        one, other, own = _features(tap, guide, seen, term.loss)
        losses.append(FEATURE_LOSSES[term.loss](one, other, own, context))
    return torch.stack(losses).sum()


def _of_outputs(term: Term, pairs: Sequence[OutputPair], seen: _Seen, context: Context) -> Tensor:
    missing = [one.student.place for one in pairs if one.student.place not in seen.our_outputs]
    if missing:
        raise TrainingError(
            f"For {term.loss}, the student must return in training what it returns in evaluation. "
            f"Received no '{missing[0]}'. Choose a strategy on features, for example pkd."
        )
    ours = [seen.our_outputs[pair.student.place].to(torch.float32) for pair in pairs]
    theirs = [seen.their_outputs[pair.teacher.place].to(torch.float32) for pair in pairs]
    return OUTPUT_LOSSES[term.loss](ours, theirs, context)


def _of_crossed(guide: _Guide, seen: _Seen, context: Context) -> Tensor:
    crossed, wanted = [], []
    for pair in guide.plan.outputs:
        if pair.crossed is None:
            continue
        tap = pair.crossed.tap
        own = _own(tap, guide)
        found = as_maps(seen.ours[tap.student.operation], tap.student)
        found = own["widen"](found) if "widen" in own else found
        for path in pair.crossed.modules:
            layer = guide.model.get_submodule(path)
            frozen = {name: one.detach() for name, one in layer.named_parameters()}
            with evaluating(layer):
                found = functional_call(layer, frozen, (found,))
        crossed.append(found)
        wanted.append(seen.their_outputs[pair.teacher.place].to(torch.float32))
    return OUTPUT_LOSSES["crosskd"](crossed, wanted, context)


def _of_pairs(term: Term, guide: _Guide, seen: _Seen) -> Tensor:
    """Return a loss on every two successive taps."""
    taps = [_features(tap, guide, seen, term.loss) for tap in guide.plan.features(term.places)]
    if len(taps) < 2:
        raise ConfigError(
            f"{term.loss} must compare at least two taps. Received {len(taps)}. Name more taps."
        )
    losses = [
        PAIR_LOSSES[term.loss]((one[0], two[0]), (one[1], two[1])) for one, two in pairwise(taps)
    ]
    return torch.stack(losses).sum()


def _features(
    tap: Tap, guide: _Guide, seen: _Seen, loss: str
) -> tuple[Tensor, Tensor, nn.ModuleDict]:
    if tap.student.operation not in seen.ours:
        raise TrainingError(
            "The student must run the layers of its taps in training, too. Received no result at "
            f"'{tap.student.operation}'. Name other taps."
        )
    own = _own(tap, guide)
    one = as_maps(seen.ours[tap.student.operation], tap.student)
    other = as_maps(seen.theirs[tap.teacher.operation], tap.teacher)
    return compared(one, other, own, loss), other, own


def _own(tap: Tap, guide: _Guide) -> nn.ModuleDict:
    found = guide.own[key_of(tap)] if key_of(tap) in guide.own else nn.ModuleDict()
    if not isinstance(found, nn.ModuleDict):
        raise TypeError("the modules of a tap must be a ModuleDict")
    return found
