"""Time tracing and pruning against Torch-Pruning, interleaved, each run in its own process.

    python benchmarks/graph_speed.py [--rounds 5] [--only resnet50 ...]

Both tools take the same network with random weights at 224 and remove half of every layer but the
last. `build` is what comes before a choice of channels (trace and groups), `prune` the cut itself;
scoring by L1 norm belongs to `prune` for both, as Torch-Pruning does not part them. Seconds are of
the processor, one thread. Memory is what the process grows by at its peak, in sizes of the model.
One row per network goes to `results/graph_speed.csv`, with intervals of the ratio of totals.
"""

import argparse
import datetime
import json
import resource
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from flyweight.measuring.bootstrap import ratio_interval
from flyweight.measuring.environment import commit, hardware

HERE = Path(__file__).resolve().parent
NETWORKS = ("resnet50", "mobilenet_v3_large", "regnet_y_400mf", "densenet121", "densenet201")
TOOLS = ("flyweight", "torch-pruning")
COLUMNS = (
    "network",
    *(f"{tool}_{part}_seconds" for tool in TOOLS for part in ("build", "prune", "total")),
    *("total_ratio", "total_ratio_low", "total_ratio_high"),
    *(f"{tool}_memory" for tool in TOOLS),
    *("plan_cost_ms", "verify_seconds", "rounds", "hardware", "runtime", "commit", "date"),
)


def measure(tool: str, name: str) -> dict[str, float]:
    """Trace and prune one network in this process; return seconds and memory."""
    import torch
    import torchvision

    torch.set_num_threads(1)
    model = torchvision.models.get_model(name, weights=None).eval()
    images = torch.rand(1, 3, 224, 224)
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    run = _flyweight if tool == "flyweight" else _torch_pruning
    run(
        torchvision.models.get_model("mobilenet_v2", weights=None).eval(), images
    )  # imports, caches
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = run(model, images)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {**found, "memory": (after - before) * 1024 / size}


def _flyweight(model: Any, images: Any) -> dict[str, float]:
    import flyweight

    start = time.process_time()
    graph = flyweight.trace(model, (images,))
    traced = time.process_time()
    plan = flyweight.plan(graph, 0.5)
    flyweight.prune(model, plan, verify=False)
    cut = time.process_time()
    plan.cost(graph)
    priced = time.process_time()
    flyweight.prune(model, plan)
    checked = time.process_time()
    return {
        "build": traced - start,
        "prune": cut - traced,
        "plan_cost_ms": 1000 * (priced - cut),
        "verify": checked - priced - (cut - traced),
    }


def _torch_pruning(model: Any, images: Any) -> dict[str, float]:
    import torch
    import torch_pruning

    last = [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]
    start = time.process_time()
    pruner = torch_pruning.pruner.BasePruner(
        model,
        images,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=1),
        pruning_ratio=0.5,
        global_pruning=False,
        ignored_layers=[last],
    )
    built = time.process_time()
    pruner.step()
    return {"build": built - start, "prune": time.process_time() - built}


def _in_own_process(tool: str, name: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", tool, name]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(name: str, rounds: int) -> dict[str, object]:
    """Measure both tools in turn and return the row of a network."""
    runs: dict[str, list[dict[str, float]]] = {tool: [] for tool in TOOLS}
    for turn in range(rounds):
        for tool in TOOLS if turn % 2 == 0 else reversed(TOOLS):
            runs[tool].append(_in_own_process(tool, name))
            print(f"{name} {tool} {runs[tool][-1]}", file=sys.stderr, flush=True)
    totals = {tool: [[run["build"] + run["prune"]] for run in runs[tool]] for tool in TOOLS}
    low, high = ratio_interval(totals["torch-pruning"], totals["flyweight"])
    row: dict[str, object] = {"network": name, "rounds": rounds}
    for tool in TOOLS:
        row[f"{tool}_build_seconds"] = f"{_median(run['build'] for run in runs[tool]):.3f}"
        row[f"{tool}_prune_seconds"] = f"{_median(run['prune'] for run in runs[tool]):.3f}"
        row[f"{tool}_total_seconds"] = f"{_median(total[0] for total in totals[tool]):.3f}"
        row[f"{tool}_memory"] = f"{_median(run['memory'] for run in runs[tool]):.2f}"
    ratio = _median(t[0] for t in totals["torch-pruning"]) / _median(
        t[0] for t in totals["flyweight"]
    )
    row |= {"total_ratio": f"{ratio:.2f}", "total_ratio_low": f"{low:.2f}"}
    row["total_ratio_high"] = f"{high:.2f}"
    row["plan_cost_ms"] = f"{_median(run['plan_cost_ms'] for run in runs['flyweight']):.2f}"
    row["verify_seconds"] = f"{_median(run['verify'] for run in runs['flyweight']):.2f}"
    return row


def _median(values: Any) -> float:
    found = sorted(values)
    middle = len(found) // 2
    return float(found[middle] if len(found) % 2 else (found[middle - 1] + found[middle]) / 2)


def main() -> int:
    """Measure and write the rows; return the exit status."""
    parser = argparse.ArgumentParser(description="Speed of tracing and pruning")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=list(NETWORKS))
    parser.add_argument("--results", type=Path, default=HERE / "results" / "graph_speed.csv")
    parser.add_argument("--child", nargs=2, metavar=("TOOL", "NETWORK"))
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(*options.child)))
        return 0
    import torch
    from tables import save_rows

    facts = {
        "hardware": hardware(),
        "runtime": f"torch {torch.__version__}, torch-pruning {version('torch-pruning')}",
        "commit": commit(HERE.parent) or "",
    }
    rows = []
    for name in options.only:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        rows.append({**compare(name, options.rounds), **facts, "date": now})
        save_rows(options.results, rows, COLUMNS)
    print(f"wrote {options.results}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
