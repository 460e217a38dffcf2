"""What the coverage benchmark does with one network, in a process of its own.

`probe` sends what it learns as it learns it, so that a network that runs out of time or memory
still leaves its row. Seconds are CPU seconds of this process.
"""

import logging
import resource
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from coverage_models import DOUBLE_UP_TO, Case, fresh, randomise
from torch import Tensor, nn

import flyweight
from flyweight.errors import FlyweightError
from flyweight.graph.example_inputs import tensors_in
from flyweight.pruning import PruningPlan
from flyweight.pruning.surgery import largest_error

Report = Callable[..., None]
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}
REMOVED_AT_LEAST = 0.05
"""Share of the parameters below which a cut counts as none."""
_OTHER_SECONDS = 600
"""Limit of every phase that is not the tool's own: building, comparing, exporting."""


class _CaseError(Exception):
    """A verdict: status and reason."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class _Phases:
    """Names what is going on, limits its CPU seconds, and turns its errors into verdicts."""

    def __init__(self, report: Report, limit: int) -> None:
        self.report, self.limit = report, limit

    @contextmanager
    def __call__(
        self, phase: str, *, tool: bool = False, failure: str = "crashed"
    ) -> Iterator[None]:
        self.report(phase=phase)
        _allow(self.limit if tool else _OTHER_SECONDS)
        try:
            yield
        except _CaseError:
            raise
        except FlyweightError as error:
            raise _CaseError("refused", f"{phase}: {error}") from error
        except Exception as error:
            raise _CaseError(failure, f"{phase}: {type(error).__name__}: {error}") from error


def _allow(seconds: int) -> None:
    used = time.process_time()
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used) + 1 + seconds, hard))


@dataclass(frozen=True)
class Limits:
    """What a network may take.

    Attributes:
        seconds: CPU seconds for each step of the tool.
        memory: Bytes.
    """

    seconds: int
    memory: int


def probe(case: Case, tool: str, limits: Limits, exports: Sequence[str], report: Report) -> None:
    """Prune half of every group of `case` and check the result.

    Args:
        case: The network.
        tool: `flyweight` or `torch-pruning`.
        limits: Of this process.
        exports: What the pruned network is exported to: `torch`, `onnx`.
        report: Takes columns of the row; `phase` names what begins.
    """
    resource.setrlimit(resource.RLIMIT_DATA, (limits.memory, limits.memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    phases = _Phases(report, limits.seconds)
    try:
        with phases("build", failure="not-built"):
            model, args = _build(case, tool)
        report(params_before=_count(model), precision=_precision(model))
        if tool == "flyweight":
            reason = _Ours(model, args, phases, exports).run()
        else:
            reason = _torch_pruning(case, model, args, phases)
        report(status="ok", reason=reason)
    except _CaseError as verdict:
        report(status=verdict.status, reason=str(verdict))


def _build(case: Case, tool: str) -> tuple[nn.Module, tuple[Any, ...]]:
    if tool == "torch-pruning":
        # What its own examples for timm ask for (TIMM_FUSED_ATTN=0).
        from timm.layers.config import set_fused_attn

        set_fused_attn(False)
    model = case.build().eval()
    args = case.example()
    precision = torch.float64 if _count(model) <= DOUBLE_UP_TO else torch.float32
    model, args = model.to(precision), fresh(args, precision)
    randomise(model, args)
    return model, args


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _dtype(model: nn.Module) -> torch.dtype:
    return next(p.dtype for p in model.parameters() if p.is_floating_point())


def _precision(model: nn.Module) -> str:
    return str(_dtype(model)).removeprefix("torch.")


class _Ours:
    """Flyweight on one network: trace, plan, prune, then every check."""

    def __init__(
        self, model: nn.Module, args: tuple[Any, ...], phases: _Phases, exports: Sequence[str]
    ) -> None:
        self.model, self.args, self.phases, self.exports = model, args, phases, exports
        self.report = phases.report
        self.before = _count(model)

    def run(self) -> str:
        with self.phases("trace", tool=True), _timed(self.report, "trace_seconds"):
            graph = flyweight.trace(self.model, self.args)
        groups = graph.groups.values()
        free = [group for group in groups if group.reason is None]
        reasons = [group.reason for group in groups if group.reason]
        self.report(
            groups=len(graph.groups),
            prunable=len(graph.prunable()),
            mixed=sum(not group.exact for group in free),
            frozen=_frequent(reasons),
        )
        with self.phases("plan", tool=True), _timed(self.report, "plan_seconds"):
            plan = flyweight.plan(graph, 0.5, inexact=False)
        small = self._cut(plan, "prune")
        self.report(params_after_exact=_count(small))
        self._require_exact(small, plan)
        gradients = self._gradients()
        self._require_trainable(small, gradients, "exact")
        left = _count(small)
        with self.phases("plan inexact", tool=True):
            wide = flyweight.plan(graph, 0.5, inexact=True)
        del graph
        if wide != plan:
            del small
            small = self._cut(wide, "prune inexact")
            left = _count(small)
        self.report(params_after_inexact=left)
        if wide != plan:
            self._require_trainable(small, gradients, "inexact")
        self._require_exports(small)
        _require_cut(self.before, left, _frequent(reasons))
        return ""

    def _cut(self, plan: PruningPlan, phase: str) -> nn.Module:
        column = "prune_seconds" if phase == "prune" else "prune_inexact_seconds"
        with self.phases(phase, tool=True), _timed(self.report, column):
            return flyweight.prune(self.model, plan, verify=False)

    def _require_exact(self, small: nn.Module, plan: PruningPlan) -> None:
        with self.phases("compare"):
            inputs = fresh(self.args, _dtype(self.model))
            error = largest_error(self.model, small, plan, inputs)
            self.report(max_error=f"{error:.2g}")
            if not error <= TOLERANCE[_dtype(self.model)]:
                raise _CaseError("wrong", f"compare: relative error {error:.2g}")
            if plan.groups and self._idle(small, inputs):
                raise _CaseError(
                    "wrong", "compare: the removed channels have no effect on this input"
                )

    def _idle(self, small: nn.Module, inputs: tuple[Any, ...]) -> bool:
        """Whether a comparison shows nothing, because the cut changes nothing on these inputs."""
        with torch.no_grad():
            dense = list(tensors_in(self.model(*inputs)))
            cut = list(tensors_in(small(*inputs)))
        return all(
            one.shape == other.shape and torch.allclose(one, other, rtol=1e-6, atol=0)
            for one, other in zip(dense, cut, strict=True)
        )

    def _gradients(self) -> set[str]:
        with self.phases("backward of the dense network"):
            return _gradients(self.model, self.args)

    def _require_trainable(self, small: nn.Module, wanted: set[str], kind: str) -> None:
        with self.phases(f"backward {kind}"):
            missing = sorted(wanted - _gradients(small, self.args))
            if missing:
                raise _CaseError(
                    "crashed", f"backward {kind}: no gradient for {', '.join(missing)}"
                )

    def _require_exports(self, small: nn.Module) -> None:
        found = []
        program: Any = None
        for kind in self.exports:
            with self.phases(f"export {kind}"):
                program, problem = _exported(kind, small, self.args, program)
                if problem and not _exported(kind, self.model, self.args, None)[1]:
                    raise _CaseError("crashed", f"export {kind}: {problem}")
                found.append(kind if not problem else f"not {kind}, nor dense")
            self.report(exports=" + ".join(found))


def _require_cut(before: int, left: int, why: str) -> None:
    if left > (1 - REMOVED_AT_LEAST) * before:
        told = f"no cut: {100 * left / before:.1f} % of the parameters stay; {why}"
        raise _CaseError("refused", told.removesuffix("; "))


def _frequent(reasons: list[str]) -> str:
    counted = Counter(reason.split(":")[0] for reason in reasons)
    return "; ".join(f"{count}x {reason}" for reason, count in counted.most_common(3))


@contextmanager
def _timed(report: Report, column: str) -> Iterator[None]:
    begin = time.process_time()
    try:
        yield
    finally:
        report(**{column: f"{time.process_time() - begin:.3f}"})


def _gradients(model: nn.Module, args: tuple[Any, ...]) -> set[str]:
    """Run forward and backward; return the names of the parameters that have a gradient."""
    model.zero_grad(set_to_none=True)
    outputs = [t for t in tensors_in(model(*args)) if t.is_floating_point() and t.requires_grad]
    total: Tensor = sum((tensor.sum() for tensor in outputs), torch.zeros(()))
    torch.autograd.backward(total)
    found = {name for name, value in model.named_parameters() if value.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def _exported(kind: str, model: nn.Module, args: tuple[Any, ...], program: Any) -> tuple[Any, str]:
    """Return the exported program, and what the exporter complained of.

    Args:
        kind: `torch`, or `onnx`, which goes on from there.
        model: The network.
        args: Its example inputs.
        program: What `torch` made of this very network, if that is known.
    """
    try:
        if program is None:
            program = torch.export.export(model, args, strict=False)
        if kind == "onnx":
            torch.onnx.export(program, dynamo=True, verbose=False)
    except Exception as error:  # noqa: BLE001 - whatever an exporter raises is its result
        return None, f"{type(error).__name__}: {error}"
    return program, ""


def _torch_pruning(case: Case, model: nn.Module, args: tuple[Any, ...], phases: _Phases) -> str:
    """Prune as Torch-Pruning's users do, without hand help, and run the result.

    Its outputs are not compared: 0 of 174 were wrong where that was measured.
    """
    import torch_pruning  # type: ignore[import-untyped]

    before = _count(model)
    ignored = case.output_layers(model)
    with phases("trace", tool=True), _timed(phases.report, "trace_seconds"):
        pruner = torch_pruning.pruner.BasePruner(
            model,
            args,
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=1),
            pruning_ratio=0.5,
            global_pruning=False,
            ignored_layers=ignored,
        )
    with phases("prune", tool=True), _timed(phases.report, "prune_seconds"):
        pruner.step()
    left = _count(model)
    phases.report(params_after_exact=left, params_after_inexact=left)
    with phases("forward and backward"):
        _gradients(model, fresh(args, _dtype(model)))
    _require_cut(before, left, "")
    return ""
