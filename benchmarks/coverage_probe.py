"""What the coverage benchmark does with one network, in a process of its own.

`probe` sends what it learns as it learns it, so that a network that runs out of time or memory
still leaves its row. Seconds are CPU seconds of this process.
"""

import copy
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
from coverage_case import Case, Inputs, in_precision, randomise
from coverage_checks import CaseError, Checks
from coverage_oracle import dtype_of, make_unique, trained, values_in, zero_by_plan, zero_by_values
from coverage_output_layers import output_layers
from torch import Tensor, nn

import flyweight
from flyweight.errors import FlyweightError

Report = Callable[..., None]
REMOVED_AT_LEAST = 0.05
"""Share of the parameters below which a cut counts as none."""
DOUBLE_UP_TO = 200_000_000
"""Networks of more parameters than this run in float32: three copies must fit into memory."""
_SEEDS = 4
"""A network whose last activation happens to be dead is drawn again this often."""
_OTHER_SECONDS = 600
"""Limit of every phase that is not the tool's own: building, comparing, exporting."""


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
        except CaseError:
            raise
        except FlyweightError as error:
            raise CaseError("refused", f"{phase}: {error}") from error
        except Exception as error:
            raise CaseError(failure, f"{phase}: {type(error).__name__}: {error}") from error


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
        verify: Cut again with the check of `prune`.
    """

    seconds: int
    memory: int
    verify: bool = True


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
            model, inputs = _build(case, tool)
        report(params_before=_count(model), precision=str(dtype_of(model)).removeprefix("torch."))
        if tool == "flyweight":
            _Ours(case, model, inputs, phases, exports).run(verify=limits.verify)
        else:
            _torch_pruning(case, model, inputs, phases)
        report(status="ok", reason="")
    except CaseError as verdict:
        report(status=verdict.status, reason=str(verdict))
    report(total_seconds=f"{time.process_time():.1f}")


def _build(case: Case, tool: str) -> tuple[nn.Module, Inputs]:
    if tool == "torch-pruning":
        # What its own examples for timm ask for (TIMM_FUSED_ATTN=0).
        from timm.layers.config import set_fused_attn

        set_fused_attn(False)
    for seed in range(_SEEDS):
        torch.manual_seed(seed)
        model = case.build().eval()
        inputs, results = _settled(model, case.call(case.batch, case.side))
        if any(_varies(result) for result in values_in(results)):
            break
    if tool == "torch-pruning":
        make_unique(model)
    return model, inputs


def _settled(model: nn.Module, inputs: Inputs) -> tuple[Inputs, Any]:
    """Give a network its values in double precision; in single if its code or size asks for it.

    Returns:
        The inputs in this precision, and the results for them.
    """
    doubles = (torch.float32, torch.float64) if _count(model) <= DOUBLE_UP_TO else ()
    for default in doubles:
        torch.set_default_dtype(default)
        wide = in_precision(inputs, torch.float64)
        try:
            return wide, randomise(model.to(torch.float64), *wide)
        except RuntimeError as error:
            if "type" not in str(error):
                raise
    torch.set_default_dtype(torch.float32)
    return inputs, randomise(model.to(torch.float32), *inputs)


def _varies(result: Tensor) -> bool:
    return result.is_floating_point() and result.numel() > 1 and bool(result.max() > result.min())


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _facts(model: nn.Module) -> dict[str, object]:
    """Return what a tool that only looks at a model must leave as it is."""
    modules = {
        f"{name}()": (module.training, len(module._forward_hooks), len(module._forward_pre_hooks))
        for name, module in model.named_modules()
    }
    tensors = {
        name: (tuple(value.shape), value.is_inference(), float(value.double().sum()))
        for name, value in model.state_dict().items()
        if value.is_floating_point()
    }
    return {**modules, **tensors}


class _Ours:
    """Flyweight on one network: trace, plan, prune, then every check."""

    def __init__(
        self,
        case: Case,
        model: nn.Module,
        inputs: Inputs,
        phases: _Phases,
        exports: Sequence[str],
    ) -> None:
        self.model, self.inputs, self.phases, self.exports = model, inputs, phases, exports
        self.case = case
        self.report = phases.report
        self.before = _count(model)

    def run(self, *, verify: bool) -> None:
        facts = _facts(self.model)
        with self.phases("trace", tool=True), _timed(self.report, "trace_seconds"):
            args, kwargs = self.inputs
            graph = flyweight.trace(self.model, args, *([kwargs] if kwargs else []))
        macs = int(graph.cost().macs)
        why = self._report_groups(graph)
        with self.phases("plan", tool=True), _timed(self.report, "plan_seconds"):
            plan = flyweight.plan(graph, 0.5, inexact=False)
        with self.phases("plan inexact", tool=True):
            wide = flyweight.plan(graph, 0.5, inexact=True)
        del graph
        checks = Checks(self.case, self.model, macs, self.phases)
        checks.look()
        small = self._cut(plan, "prune")
        self._require_unchanged(facts)
        left = _count(small)
        self.report(params_after_exact=left)
        with self.phases("compare"):
            zeroed = zero_by_plan(self.model, plan)
        checks.compare(small, effect=bool(plan.groups))
        zeroed.release()
        if verify:
            self._require_verified(plan)
        self._require_exports(small)
        if wide != plan:
            del small
            left = self._inexact(wide)
        self.report(params_after_inexact=left)
        _require_cut(self.before, left, why)

    def _report_groups(self, graph: Any) -> str:
        groups = graph.groups.values()
        free = [group for group in groups if group.reason is None]
        why = _frequent([group.reason for group in groups if group.reason])
        self.report(
            groups=len(graph.groups),
            prunable=len(graph.prunable()),
            mixed=sum(not group.exact for group in free),
            frozen=why,
        )
        return why

    def _cut(self, plan: Any, phase: str) -> nn.Module:
        column = "prune_seconds" if phase == "prune" else "prune_inexact_seconds"
        with self.phases(phase, tool=True), _timed(self.report, column):
            return flyweight.prune(self.model, plan, verify=False)

    def _require_unchanged(self, facts: dict[str, object]) -> None:
        now = _facts(self.model)
        changed = [name for name in facts | now if facts.get(name) != now.get(name)]
        if changed:
            told = f"the network was changed: {', '.join(changed[:3])}"
            raise CaseError("wrong", told)

    def _require_verified(self, plan: Any) -> None:
        """Cut again as users do: with the check after the cut, which must not refuse it."""
        with self.phases("verify"), _timed(self.report, "verify_seconds"):
            flyweight.prune(self.model, plan, verify=True)

    def _inexact(self, plan: Any) -> int:
        small = self._cut(plan, "prune inexact")
        with self.phases("backward inexact"):
            trained(small, self.training_inputs())
        return _count(small)

    def training_inputs(self) -> Inputs:
        """Return inputs of training mode."""
        made = self.case.call(max(self.case.batch, 2), self.case.side, training=True)
        return in_precision(made, dtype_of(self.model))

    def _require_exports(self, small: nn.Module) -> None:
        found = []
        program: Any = None
        for kind in self.exports:
            with self.phases(f"export {kind}"):
                program, problem = _exported(kind, small, self.inputs, program)
                if problem and not _exported(kind, self.model, self.inputs, None)[1]:
                    raise CaseError("crashed", f"export {kind}: {problem}")
                found.append(kind if not problem else f"not {kind}, nor dense")
            self.report(exports=" + ".join(found))


def _require_cut(before: int, left: int, why: str) -> None:
    if left > (1 - REMOVED_AT_LEAST) * before:
        told = f"no cut: {100 * left / before:.1f} % of the parameters stay; {why}"
        raise CaseError("refused", told.removesuffix("; "))


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


def _exported(kind: str, model: nn.Module, inputs: Inputs, program: Any) -> tuple[Any, str]:
    """Return the exported program, and what the exporter complained of.

    Args:
        kind: `torch`, or `onnx`, which goes on from there.
        model: The network.
        inputs: Its example inputs.
        program: What `torch` made of this very network, if that is known.
    """
    try:
        if program is None:
            program = torch.export.export(model, *inputs, strict=False)
        if kind == "onnx":
            torch.onnx.export(program, dynamo=True, verbose=False)
    except Exception as error:  # noqa: BLE001 - whatever an exporter raises is its result
        return None, f"{type(error).__name__}: {error}"
    return program, ""


def _torch_pruning(case: Case, model: nn.Module, inputs: Inputs, phases: _Phases) -> None:
    """Prune as Torch-Pruning's users do, without hand help, and compare with the dense network."""
    import torch_pruning  # type: ignore[import-untyped]

    before = _count(model)
    dense = copy.deepcopy(model)
    with phases("run"):
        ignored = case.output_layers(model) or output_layers(model, inputs)
    with phases("trace", tool=True), _timed(phases.report, "trace_seconds"):
        pruner = torch_pruning.pruner.BasePruner(
            model,
            dict(inputs[1]) if inputs[1] and not inputs[0] else inputs[0],
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=1),
            pruning_ratio=0.5,
            global_pruning=False,
            ignored_layers=ignored,
        )
    with phases("prune", tool=True), _timed(phases.report, "prune_seconds"):
        pruner.step()
    left = _count(model)
    phases.report(params_after_exact=left, params_after_inexact=left)
    checks = Checks(case, dense, 0, phases)
    checks.look()
    with phases("compare"):
        mixed = zero_by_values(dense, model)
    try:
        checks.compare(model, effect=left < before)
    except CaseError as verdict:
        if mixed and verdict.status == "wrong":
            told = f"{len(mixed)} normalisations that mix channels were narrowed; {verdict}"
            raise CaseError("inexact", told) from verdict
        raise
    _require_cut(before, left, "")
