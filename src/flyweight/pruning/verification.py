"""Verification of cuts: the pruned network computes what the dense one does without the channels.

Both networks repeat the runs that the trace recorded, on the user's own inputs, in both modes and
at both sizes. The dense network has the removed channels zeroed where they are read. Copies run, in
double precision where that is affordable, so that rounding cannot hide a difference.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from flyweight.errors import PlanError
from flyweight.graph.containers import tensors_in
from flyweight.graph.dispatch import Dispatch, plain_attention
from flyweight.graph.example_inputs import Example, draw
from flyweight.graph.isolation import isolated
from flyweight.graph.program import Mode, RecordedRun
from flyweight.graph.stored import copy_module, held_tensors
from flyweight.graph.variants import doubled
from flyweight.pruning.masking import masked
from flyweight.pruning.plans import PruningPlan
from flyweight.pruning.without_chance import without_chance

DOUBLE_TOLERANCE = 1e-9
SINGLE_TOLERANCE = 1e-3
"""Sums of float32 in another order differ, and deep networks amplify the differences."""
_AFFORDABLE_MACS = 5_000_000_000
"""Multiply-adds up to which an example is run in double precision."""
_HUGE = 1e30
"""Numbers beyond stand for infinity: masks often are the largest number of a type, beside which no
difference could be seen."""
_CHEAP_MACS = 500_000_000
"""Multiply-adds up to which training repeats its own example, and above it the smallest one."""
_NUDGES = {True: 1e-12, False: 1e-6}
"""By how much inputs are changed to find out whether a network amplifies rounding, in double
precision or not."""
_NARROW = (torch.float32, torch.float16, torch.bfloat16)
_WIDE = (torch.float64, torch.complex128)


def largest_error(
    dense: nn.Module,
    small: nn.Module,
    plan: PruningPlan,
    inputs: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
) -> float:
    """Return the largest relative difference between the outputs of `small` and masked `dense`.

    Args:
        dense: The network before the cut.
        small: The network after it.
        plan: The cut.
        inputs: Any inputs; both networks run on them in evaluation mode.
        kwargs: Inputs by keyword.

    Returns:
        The largest absolute difference of an output tensor divided by its largest finite value.
        It is infinite where shapes, truth values or whole numbers differ, or where one value is
        infinite or undefined and the other is not the same.
    """
    run = RecordedRun("evaluation", Example(inputs, dict(kwargs or {})))
    expected = _outcome(masked(dense, plan), run)
    found = _outcome(copy_module(small), run)
    return _difference(expected.outputs, found.outputs)


Cutter = Callable[[PruningPlan], nn.Module]
"""Returns a copy of the dense network, cut by a plan."""


def require_same(
    dense: nn.Module, small: nn.Module, plan: PruningPlan, cut: Cutter | None = None
) -> None:
    """Check that `small` computes the same as the masked `dense` in every recorded run.

    The result of a plan that is not exact only has to run. A plan that was read from a file has no
    inputs; the check then draws some of the recorded shapes. Where the dense network itself fails
    on the inputs, a warning says that nothing was checked.

    Args:
        dense: The network before the cut.
        small: The network after it.
        plan: The cut.
        cut: Makes further cuts, to find the group that is to blame.

    Raises:
        PlanError: The module's code fails after the cut, the results differ, or a parameter that
            received a gradient does not receive one any more.
    """
    for run in runs_of(dense, plan):
        problem = _problem(dense, small, plan, run)
        if problem is not None:
            raise PlanError(problem.message(_culprit(dense, plan, run, cut)))


def _culprit(
    dense: nn.Module, plan: PruningPlan, run: RecordedRun, cut: Cutter | None
) -> str | None:
    """Return the group whose cut alone is wrong, found by halves; None where that finds none.

    Numbers that modules count with depend on all groups of a plan, so a plan with numbers has no
    parts.
    """
    groups = list(plan.groups)
    if cut is None or plan.numbers:
        return None
    while len(groups) > 1:
        half = groups[: len(groups) // 2]
        part = replace(plan, groups={name: plan.groups[name] for name in half})
        wrong = _problem(dense, cut(part), part, run) is not None
        groups = half if wrong else groups[len(half) :]
    part = replace(plan, groups={name: plan.groups[name] for name in groups})
    return groups[0] if _problem(dense, cut(part), part, run) is not None else None


@dataclass(frozen=True)
class _Problem:
    """What is wrong with a cut.

    Attributes:
        must: What must hold.
        received: What was found.
    """

    must: str
    received: str

    def message(self, group: str | None) -> str:
        """Return the error message, with the group that is to blame if it is known."""
        leave = (
            f"Leave out '{group}'" if group else "Cut fewer groups, to find the one to leave out"
        )
        return f"{self.must}. Received {self.received}. {leave}; nothing was returned."


@dataclass(frozen=True, eq=False)
class _Outcome:
    """What a run returned, and which parameters its gradient reached.

    Attributes:
        outputs: The tensors.
        reached: Names of the parameters that have a gradient; in training alone.
        double: Whether weights and inputs were in double precision.
        narrow: Whether the code computed in a lower precision all the same.
    """

    outputs: list[Tensor]
    reached: frozenset[str] = frozenset()
    double: bool = False
    narrow: bool = True

    @property
    def tolerance(self) -> float:
        """The relative error that is allowed."""
        return SINGLE_TOLERANCE if self.narrow else DOUBLE_TOLERANCE


def runs_of(dense: nn.Module, plan: PruningPlan) -> Iterator[RecordedRun]:
    """Yield what a check repeats. In training the batch is doubled: one image has no average."""
    runs = plan.runs or _drawn_runs(dense, plan)
    cheapest = min(runs, key=lambda run: run.macs)
    for run in runs:
        if run.mode == "training":
            chosen = run if run.macs <= _CHEAP_MACS else cheapest
            run = replace(run, example=doubled(chosen.example))
        yield run


def _drawn_runs(dense: nn.Module, plan: PruningPlan) -> tuple[RecordedRun, ...]:
    generator = torch.Generator().manual_seed(0)
    first = next(iter(dense.parameters()))
    drawn = Example(
        tuple(draw(spec, generator, first) for spec in plan.inputs),
        {name: draw(spec, generator, first) for name, spec in plan.keywords.items()},
    )
    return RecordedRun("evaluation", drawn), RecordedRun("training", drawn)


def _problem(
    dense: nn.Module, small: nn.Module, plan: PruningPlan, run: RecordedRun
) -> _Problem | None:
    """Return what differs in one run; None where nothing does or the dense network fails."""
    expected = _expected(dense, plan, run)
    if expected is None:
        return None
    try:
        found = _outcome(copy_module(small), run, double=expected.double)
    except Exception as failure:  # noqa: BLE001 - any error of the user's code
        return _Problem(
            "A cut must be one that the model's own code follows",
            f"from {type(small).__name__} in {run.mode}: {_first_line(failure)}",
        )
    if not plan.exact:
        return None
    different = _different(expected, found, run.mode)
    if different and not (run.mode == "training" and _amplifies(dense, plan, run, expected, found)):
        return different
    return _lost_gradient(expected, found)


def _amplifies(
    dense: nn.Module, plan: PruningPlan, run: RecordedRun, expected: _Outcome, found: _Outcome
) -> bool:
    """Whether rounding explains a difference: inputs that differ as little change as much.

    Batch normalisation divides by the deviation of a batch, which is zero for equal images.
    """

    def nudged(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        pattern = torch.linspace(-1, 1, tensor.numel(), device=tensor.device).view(tensor.shape)
        return tensor + pattern.to(tensor.dtype) * _NUDGES[expected.double]

    example = run.example.mapped(nudged)
    moved = _outcome(masked(dense, plan), replace(run, example=example), double=expected.double)
    difference = _difference(expected.outputs, found.outputs)
    return difference <= _difference(expected.outputs, moved.outputs)


def _expected(dense: nn.Module, plan: PruningPlan, run: RecordedRun) -> _Outcome | None:
    """Return the outcome of the masked network, in double precision where it runs in that."""
    affordable = run.macs <= _AFFORDABLE_MACS
    for double in (True, False) if affordable else (False,):
        try:
            return _outcome(masked(dense, plan), run, double=double)
        except Exception as error:  # noqa: BLE001 - any error of the user's code
            failure = error
    if run.mode == "evaluation":
        warnings.warn(
            "The cut was not checked, because the dense network fails on the inputs: "
            f"{_first_line(failure)}.",
            stacklevel=4,
        )
    return None


def _different(expected: _Outcome, found: _Outcome, mode: Mode) -> _Problem | None:
    error = _difference(expected.outputs, found.outputs)
    if error <= expected.tolerance:
        return None
    return _Problem(
        "A pruned model must equal the dense one with the removed channels zeroed",
        f"a relative error of {error:.2g} in {mode} (allowed {expected.tolerance:g})",
    )


def _lost_gradient(expected: _Outcome, found: _Outcome) -> _Problem | None:
    lost = sorted(expected.reached - found.reached)
    if not lost:
        return None
    return _Problem(
        "Every parameter that receives a gradient must receive one after the cut",
        f"a model in which '{lost[0]}' receives none",
    )


def _outcome(copy: nn.Module, run: RecordedRun, *, double: bool = False) -> _Outcome:
    """Run a private copy; what its code keeps outside of itself is taken back."""
    # Copies, because inputs of the user may belong to a graph of gradients or be written into.
    example = run.example.mapped(lambda tensor: tensor.detach().clone())
    if double:
        _widen(copy)
        example = example.mapped(_widened)
    training = run.mode == "training"
    copy.train(training)
    gradients = torch.enable_grad() if training else torch.inference_mode()
    precision = _Precision()
    with isolated(copy, _may_be_of_the_check), plain_attention(copy), gradients:
        with without_chance(copy), precision:
            outputs = list(tensors_in(copy(*example.args, **example.kwargs)))
        reached = _reached(copy, outputs) if training else frozenset()
    narrow = not double or precision.narrow
    return _Outcome([_dense(one.detach()) for one in outputs], reached, double, narrow)


def _dense(tensor: Tensor) -> Tensor:
    return tensor if tensor.layout is torch.strided else tensor.to_dense()


def _widen(copy: nn.Module) -> None:
    """Turn every floating-point tensor of a private copy into double precision, attributes too."""
    copy.double()
    for _, tensor, holder in list(held_tensors(copy)):
        if tensor.dtype in _NARROW:
            holder.put(tensor.double())


def _widened(tensor: Tensor) -> Tensor:
    if tensor.is_complex():
        return tensor.to(torch.complex128)
    return tensor.double() if tensor.is_floating_point() else tensor


def _may_be_of_the_check(tensor: Tensor) -> bool:
    """Whether a tensor that was found outside of a module was made here."""
    return tensor.is_inference() or tensor.requires_grad or tensor.dtype in _WIDE


class _Precision(Dispatch):
    """Notes whether the code computes in a lower precision than its inputs have."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.narrow = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        tensor = result[0] if isinstance(result, (tuple, list)) and result else result
        # A copy of a number that the code wrote in single precision loses nothing.
        if isinstance(tensor, Tensor) and tensor.dtype in _NARROW and tensor.numel() > 1:
            self.narrow = True
        return result


def _reached(copy: nn.Module, outputs: list[Tensor]) -> frozenset[str]:
    """Return the names of the parameters that receive a gradient from the outputs."""
    followed = [one for one in outputs if one.requires_grad]
    if followed:
        torch.autograd.backward(
            [one.abs().sum() if one.is_complex() else one.sum() for one in followed]
        )
    return frozenset(
        name for name, parameter in copy.named_parameters() if parameter.grad is not None
    )


def _difference(expected: list[Tensor], found: list[Tensor]) -> float:
    if len(expected) != len(found):
        return math.inf
    return max((_gap(want, have) for want, have in zip(expected, found, strict=True)), default=0.0)


def _gap(want: Tensor, have: Tensor) -> float:
    """Return the largest difference of two tensors, relative to the largest finite value."""
    if want.shape != have.shape:
        return math.inf
    if not (want.is_floating_point() or want.is_complex()):
        return 0.0 if torch.equal(want, have) else math.inf
    if want.numel() == 0:
        return 0.0
    want, have = (torch.where(one.abs() > _HUGE, one * math.inf, one) for one in (want, have))
    finite = want.isfinite()
    # Masked scores are infinite in both; one undefined value is like another.
    if not torch.equal(want[~finite].nan_to_num(), have[~finite].nan_to_num()):
        return math.inf
    if not bool(have[finite].isfinite().all()) or bool(have[~finite].isfinite().any()):
        return math.inf
    if not bool(finite.any()):
        return 0.0
    scale = max(float(want[finite].abs().max()), 1e-12)
    return float((want[finite] - have[finite]).abs().max()) / scale


def _first_line(failure: Exception) -> str:
    return (str(failure).strip() or type(failure).__name__).splitlines()[0][:200]
