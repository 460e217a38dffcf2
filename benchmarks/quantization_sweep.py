"""Quantize every family of the zoo and networks of three libraries, and check each result.

    python benchmarks/quantization_sweep.py
    python benchmarks/quantization_sweep.py --only resnet18 unet

Every network runs in a process of its own with limits of CPU seconds and memory, and has a row in
`results/quantization_sweep.csv`. README.md describes the protocol.
"""

import argparse
import datetime
import logging
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from coverage_case import Case, randomise
from quantization_networks import networks
from quantization_pieces import (
    Difference,
    cut,
    differences,
    rounded_tensors,
    with_operation,
)
from tables import read_rows, replace_row
from torch import Tensor, nn

import flyweight as fw
from flyweight.errors import FlyweightError
from flyweight.exporting.flat_inputs import FlatInputs
from flyweight.exporting.onnx import OnnxConfig, to_onnx
from flyweight.graph.containers import placed_tensors
from flyweight.graph.example_inputs import Example
from flyweight.measuring.census import Census, take_census
from flyweight.measuring.environment import commit, hardware
from flyweight.processors import clipping_note, processor_flags
from flyweight.quantization.network import plan_of
from flyweight.quantization.quantization_plan import QuantizationPlan
from flyweight.runtimes.protocol import OpenSettings
from flyweight.runtimes.runtime_table import runtime_by_name, runtime_entry

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "quantization_sweep.csv"
RUNTIMES = ("onnxruntime", "openvino")
KEY = ("source", "network")
COLUMNS = (
    *("source", "network", "status", "reason", "layers", "planned", "float_layers"),
    *("onnxruntime_integer", "openvino_integer", "distance_float"),
    *("onnxruntime_distance", "openvino_distance", "pieces", "uncompared"),
    *("onnxruntime_flips", "onnxruntime_levels", "openvino_flips", "openvino_levels"),
    *("weight_bits", "seconds", "hardware", "versions", "commit", "date"),
)
MOST_FLIPS = 1e-4
"""Share of the integers of a layer, and of all pieces together, that may differ by a level."""
_FEW = 3
"""Integers of a small layer that may differ, whatever their share."""
_POOLED = "RoiAlign"
"""Operation whose rows have no order where the network chooses them among equal scores."""
_IMAGES, _TRIALS = 4, 2
_REASON_LENGTH = 240
_GIGABYTE = 2**30
Row = dict[str, object]


def probe(case: Case, folder: Path) -> Iterator[Row]:
    """Quantize a network and check the file; yield columns as they become known."""
    model, batches = _network(case)
    yield {"phase": "quantize"}
    clips = clipping_note(processor_flags(), os.uname().machine) is not None
    bits = 7 if clips else 8
    small = fw.quantize(model, batches, fw.QuantConfig(weight_bits=bits))
    plan = plan_of(small)
    if plan is None:
        raise RuntimeError("fw.quantize returned a float network")
    yield {"weight_bits": bits, "planned": len(plan.layers), "float_layers": _floats(plan)}
    trials = [_first(batch) for batch in batches[:_TRIALS]]
    yield {"distance_float": _distance(_run(model, trials[0]), _run(small, trials[0]))}
    yield {"phase": "export"}
    path = folder / "network.onnx"
    # Random weights amplify single levels; what the pieces compute is compared below.
    settings = OnnxConfig(tolerance=1e6)
    to_onnx(small, path, example=trials[0], compare_on=trials[1:], config=settings)
    readable: list[str] = []
    yield from _censuses(path, plan, readable)
    yield from _comparisons((small, plan, path), trials, readable)


def _network(case: Case) -> tuple[nn.Module, list[Example]]:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = case.build().eval()
    args, kwargs = case.call(4, case.side)
    randomise(model, args, kwargs)
    batches = [Example(*case.call(2, case.side)) for _ in range(_IMAGES // 2)]
    return model, batches


def _first(batch: Example) -> Example:
    return batch.mapped(lambda tensor: tensor[:1])


def _run(model: nn.Module, example: Example) -> list[Tensor]:
    with torch.no_grad():
        made = model(*example.args, **example.kwargs)
    return [tensor for _, tensor in placed_tensors(made)]


def _distance(wanted: Sequence[Tensor], found: Sequence[Tensor]) -> str:
    """Return the largest distance of an output, as a share of its length; empty for rows."""
    if [one.shape for one in wanted] != [one.shape for one in found]:
        return ""
    shares = [
        float((one.double() - other.double()).norm() / one.double().norm().clamp_min(1e-12))
        for one, other in zip(wanted, found, strict=True)
    ]
    return f"{max(shares):.3g}"


def _floats(plan: QuantizationPlan) -> str:
    counts = Counter(reason.partition(",")[0] for reason in plan.floats.values())
    return "; ".join(f"{count} {reason}" for reason, count in counts.most_common())


def _censuses(path: Path, plan: QuantizationPlan, readable: list[str]) -> Iterator[Row]:
    """Yield how each runtime computes the layers; `readable` gets those that load the file."""
    wanted = {layer.operation for layer in plan.layers.values()}
    for runtime in RUNTIMES:
        yield {"phase": f"census in {runtime}"}
        try:
            census = take_census(path, runtime=runtime)
        except FlyweightError as error:
            yield {
                "status": "refused",
                "reason": f"{runtime}: {str(error).partition('Received: ')[2]}",
            }
            continue
        readable.append(runtime)
        planned = [one for one in census.layers if one.name in wanted]
        integer = sum(one.is_integer for one in planned)
        yield {
            "layers": len(census.layers),
            f"{runtime}_integer": f"{census.integer_count} of {len(census.layers)}",
        }
        if integer < len(planned) or not planned:
            yield {"status": "wrong", "reason": _left(census, wanted)}


def _left(census: Census, wanted: set[str]) -> str:
    left = [one for one in census.layers if one.name in wanted and not one.is_integer]
    if not left:
        return f"{census.runtime}: no layer of the plan is in the file"
    first = left[0]
    title = runtime_entry(census.runtime).title
    return f"{title} leaves {len(left)} planned layers in float: '{first.name}' ({first.reason})"


def _comparisons(
    made: tuple[nn.Module, QuantizationPlan, Path],
    trials: Sequence[Example],
    runtimes: Sequence[str],
) -> Iterator[Row]:
    small, plan, path = made
    flat = [FlatInputs.of(trial) for trial in trials]
    tensors = [rounded_tensors(small, trial) for trial in trials]
    pieces, unordered = path.with_name("pieces.onnx"), bool(getattr(small, "unordered", ()))
    names = cut(path, tensors[0], pieces)
    loose = with_operation(pieces, names, _POOLED) if unordered else frozenset()
    kept = {name: place for name, place in names.items() if name not in loose}
    layers = {layer.result for layer in plan.layers.values()}
    yield {"pieces": len(names), "uncompared": len(tensors[0]) - len(kept)}
    for runtime in runtimes:
        yield {"phase": f"run in {runtime}"}
        settings = OpenSettings()
        whole = runtime_by_name(runtime).open(path, settings)
        taken = {item.name for item in whole.inputs}
        given = [_arrays(one, taken) for one in flat]
        found = [torch.from_numpy(values) for values in whole.run(given[0]).values()]
        yield {f"{runtime}_distance": _distance(_run(small, trials[0]), found)}
        cut_open = runtime_by_name(runtime).open(pieces, settings)
        every = [
            one
            for values, inputs in zip(tensors, given, strict=True)
            for one in differences(cut_open.run, inputs, values, names)
            if one.name not in loose
        ]
        yield from _judged(runtime, every, layers)


def _arrays(flat: FlatInputs, taken: set[str]) -> Mapping[str, Any]:
    named = zip(flat.names, flat.tensors, strict=True)
    return {name: tensor.numpy() for name, tensor in named if name in taken}


def _judged(runtime: str, every: Sequence[Difference], layers: set[str]) -> Iterator[Row]:
    """Judge layers one by one, and other operations, which have ties, all together."""
    total = sum(one.values for one in every)
    share = sum(one.flips for one in every) / max(total, 1)
    levels = max((one.levels for one in every), default=0)
    yield {f"{runtime}_flips": f"{share:.2g}", f"{runtime}_levels": levels}
    bad = [
        one
        for one in every
        if one.levels > 1
        or (one.flips > max(_FEW, MOST_FLIPS * one.values) and one.quantizer in layers)
        or (one.flips and share > MOST_FLIPS)
    ]
    if bad:
        worst = max(bad, key=lambda one: (one.levels, one.flips / one.values))
        yield {
            "status": "wrong",
            "reason": f"{runtime_entry(runtime).title}: {len(bad)} pieces differ; of "
            f"'{worst.quantizer}' {worst.flips} of {worst.values} integers, by {worst.levels}",
        }


def main() -> int:
    """Run the networks; return 1 if one is wrong or crashed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[], help="Names of networks.")
    parser.add_argument("--source", nargs="+", default=[], help="Sources of networks.")
    parser.add_argument("--missing", action="store_true", help="Only networks without a row.")
    parser.add_argument("--results", type=Path, default=RESULTS, help="Where the rows go.")
    parser.add_argument("--limit", type=int, default=600, help="CPU seconds of a network.")
    parser.add_argument("--memory", type=float, default=8, help="Gigabytes of a network.")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    versions = "; ".join(f"{name} {version(name).partition('-')[0]}" for name in RUNTIMES)
    facts = {"hardware": hardware(), "versions": versions, "commit": commit(HERE.parent)}
    bad = 0
    for case in _chosen(options):
        row = {**_row(case, options.limit, options.memory), **facts}
        replace_row(options.results, row, COLUMNS, KEY)
        print(*(f"{row.get(name, '')}" for name in COLUMNS[:20]), sep=" | ", flush=True)
        bad += row["status"] in ("wrong", "crashed")
    return int(bad > 0)


def _chosen(options: argparse.Namespace) -> Iterator[Case]:
    known = {tuple(row[name] for name in KEY) for row in read_rows(options.results, COLUMNS)}
    for case in networks():
        named = not options.only or case.name in options.only
        sourced = not options.source or case.suite in options.source
        done = options.missing and (case.suite, case.name) in known
        if named and sourced and not done:
            yield case


def _row(case: Case, limit: int, memory: float) -> Row:
    """Run a network in a process of its own and return its row."""
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    started = time.monotonic()
    process = context.Process(target=_child, args=(case, (limit, memory), sending))
    process.start()
    sending.close()
    told: Row = {"status": "ok", "reason": "", "phase": "build"}
    with suppress(EOFError):
        while True:
            told |= receiving.recv()
    process.join()
    code = process.exitcode or 0
    if code:
        died = signal.Signals(-code).name if code < 0 else f"status {code}"
        told |= {"status": "crashed", "reason": f"{told['phase']}: {died}"}
    told["reason"] = " ".join(str(told["reason"]).split())[:_REASON_LENGTH]
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    seconds = round(time.monotonic() - started)
    return {"source": case.suite, "network": case.name, **told, "date": date, "seconds": seconds}


def _child(case: Case, limits: tuple[int, float], sending: Connection) -> None:
    """Send the columns of a network as they become known."""
    seconds, most = limits[0], int(limits[1] * _GIGABYTE)
    used = int(time.process_time())
    resource.setrlimit(resource.RLIMIT_CPU, (used + seconds, used + seconds + 10))
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    phase: object = "build"
    try:
        with tempfile.TemporaryDirectory() as folder:
            for columns in probe(case, Path(folder)):
                phase = columns.get("phase", phase)
                sending.send(columns)
    except FlyweightError as error:
        sending.send({"status": "refused", "reason": str(error)})
    except Exception as error:  # noqa: BLE001 - whatever the network and the runtimes raise
        traceback.print_exc()
        reason = f"{phase}: {type(error).__name__}: {error}"
        sending.send({"status": "crashed", "reason": reason})


if __name__ == "__main__":
    sys.exit(main())
