import json

import numpy as np
import pytest
import torch
from tests import browser, strategies
from tests.measuring.machine import blocked
from torch import nn

import flyweight as fw
from flyweight.errors import PlanError
from flyweight.graph import trace
from flyweight.measuring.latency_prices import LatencyPrices
from flyweight.measuring.table_builder import measure_layers
from flyweight.planning.loss_curves import widths
from flyweight.pruning import PruningPlan, plan
from flyweight.sensitivity import Budget, Point, Sensitivity
from flyweight.sensitivity.explorer_values import Cutting
from flyweight.sensitivity.page import Subject, write_page

RATIOS = (0.2, 0.4, 0.6, 0.8)
KEYS = ("macs", "params", "size_bytes")
LOOK = """{
  plan: document.getElementById("explorer-plan").textContent,
  says: document.getElementById("explorer-says").textContent,
  command: document.getElementById("explorer-command").textContent,
  ratios: document.getElementById("explorer-ratios").textContent,
  loss: Number(document.getElementById("explorer-metric").dataset.loss),
  metric: document.getElementById("explorer-metric").textContent,
  costs: ["macs", "params", "size_bytes"].map((key) =>
    Number(document.getElementById(`explorer-${key}`).dataset.exact)),
  widths: [...document.querySelectorAll("#explorer-layers .arrow")].map((cell) =>
    Number(cell.textContent)),
  slider: ["value", "max"].map((name) => Number(document.getElementById("explorer-slider")[name])),
  number: document.getElementById("explorer-number").value,
  disabled: document.getElementById("explorer-save").disabled,
}"""


def noisy_curves(graph, *, local=False, seed=0):
    """Return curves of all groups that fall, wobble and gain."""
    generator = np.random.default_rng(seed)
    found = {}
    for name, group in graph.groups.items():
        if group.reason is None and group.size > 1:
            steep, power = generator.uniform(0.02, 1.1), generator.uniform(1, 3)
            values = [0.8 * (1 - steep * r**power) + generator.normal(0, 0.01) for r in RATIOS]
            values = [max(value, 0.0) for value in values]
            rows = zip(RATIOS, values, strict=True)
            found[name] = tuple(Point(r, v, (max(v - 0.02, 0), v + 0.02)) for r, v in rows)
    return Sensitivity("map_50", 0.8, found, local=local, graph=graph)


def network(kinds, width=8):
    return trace(strategies.build(kinds, width), strategies.example(1))


GRAPHS = {
    "coupled": (["residual", "depthwise", "concat", "squeeze_excite"], True),
    "counted": (["attention", "grouped", "shuffle", "chain"], False),
    "mixed": (["normalised", "reordered", "projected"], False),
}


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("name", GRAPHS)
def test_what_the_page_shows_is_what_python_makes(name, tmp_path):
    kinds, local = GRAPHS[name]
    graph = network(kinds)
    curves = noisy_curves(graph, local=local)
    page = tmp_path / "sens.html"
    write_page(curves, page, graph, cutting=Cutting(round_to=2))
    drops = (0.035, 0.05, 0.25, 0.6, 1.0)
    seen = browser.visited(page, [f"mode=max_drop&value={drop}" for drop in drops], LOOK)
    for drop, found in zip(drops, seen, strict=True):
        made = curves.plan(max_drop=drop, round_to=2)
        assert found["plan"] == made.to_json()
        assert PruningPlan.from_json(found["plan"]) == made
        cost = made.cost(graph)
        assert found["costs"] == [getattr(cost, key) for key in KEYS]
        assert found["command"] == f"plan = curves.plan(max_drop={drop:g})"
        kept = {n: g.size for n, g in graph.groups.items()}
        kept |= {n: len(g.keep) for n, g in made.groups.items()}
        assert found["widths"] == [kept[layer] for layer in curves.curves]
    assert seen[0]["plan"] != seen[2]["plan"]


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("name", GRAPHS)
def test_budgets_are_kept_and_nearly_as_good_as_the_exact_solver_s(name, tmp_path):
    kinds, local = GRAPHS[name]
    graph = network(kinds)
    curves = noisy_curves(graph, local=local, seed=1)
    page = tmp_path / "sens.html"
    curves.write_page(page)
    wanted = [(key, share) for key in KEYS[:2] for share in (0.45, 0.6, 0.75, 0.9)]
    states = [f"mode={key}&value={share}" for key, share in wanted]
    seen = browser.visited(page, states, LOOK)
    gaps = []
    for (key, share), found in zip(wanted, seen, strict=True):
        budget = Budget(**{key: share})
        made = PruningPlan.from_json(found["plan"])
        cost = made.cost(graph)
        assert found["costs"] == [getattr(cost, name) for name in KEYS]
        assert getattr(cost, key) <= budget.limit(graph.cost())
        ratios = {n: 1 - len(g.keep) / g.channels for n, g in made.groups.items()}
        again = plan(graph, ratios, curves.criterion, local=local, inexact=True)
        assert found["plan"] == again.to_json()
        exact = loss_of(curves, graph, curves.ratios_within(graph, budget))
        assert found["loss"] == pytest.approx(loss_of(curves, graph, ratios))
        gaps.append(found["loss"] - exact)
        assert found["command"] == f"plan = curves.plan(budget=fw.Budget({key}={share:g}))"
    # In shares of the metric: a thousandth of it at most, and mostly none.
    assert min(gaps) > -1e-6
    assert max(gaps) < 1e-3
    assert np.median(gaps) < 1e-6


@pytest.mark.browser
def test_latency_is_limited_where_a_table_is_given(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.Conv2d(64, 48, 1), nn.Conv2d(48, 2, 1)).eval()
    graph = trace(model, (torch.rand(1, 3, 16, 16),))
    prices = LatencyPrices.of(graph, measure_layers(graph, tmp_path / "t.json", timer=blocked(16)))
    page = tmp_path / "sens.html"
    cutting = Cutting(command="flyweight prune", latency=prices, latency_option="--latency-table t")
    write_page(noisy_curves(graph), page, graph, cutting=cutting)
    look = LOOK.replace('"size_bytes"]', '"size_bytes", "latency_share"]')
    wide, narrow = browser.visited(
        page, [f"mode=latency_share&value={share}" for share in (1, 0.7)], look
    )
    assert wide["costs"][3] <= prices.predict_ms({}) * 1.0001
    assert 0 < narrow["costs"][3] <= 0.7 * prices.predict_ms({}) * 1.0001
    made = PruningPlan.from_json(narrow["plan"])
    assert {len(group.keep) % 16 for group in made.groups.values()} == {0}
    option = "--budget latency_share=0.7 --latency-table t"
    assert narrow["command"] == f"flyweight prune {option}"
    assert "smoothed" in page.read_text()


def loss_of(curves, graph, ratios):
    total = 0.0
    for layer, ratio in ratios.items():
        size = graph.groups[layer].size
        losses = {option.keep: option.loss for option in widths(curves.losses(layer), size)}
        total += losses[size - round(size * ratio)]
    return total


@pytest.mark.browser
def test_ends_of_the_scale_are_no_mistakes(tmp_path):
    graph = network(["chain", "residual"])
    curves = noisy_curves(graph)
    page = tmp_path / "sens.html"
    curves.write_page(page)
    told = ("0", "-3", "7", "x", "")
    states = [f"mode=max_drop&value={value}" for value in told]
    states += [f"mode={key}&value={value}" for key in KEYS for value in (0, 0.01, 1, 99)]
    states += ["mode=speed&value=1", "explorer", "mode=macs"]
    seen = dict(zip(states, browser.visited(page, states, LOOK), strict=True))
    nothing = seen["mode=max_drop&value=0"]
    assert nothing["says"].startswith("No cut")
    assert nothing["plan"] == nothing["command"] == ""
    assert nothing["disabled"]
    assert nothing["metric"] == "80.0 %"
    assert nothing["slider"][0] == 0
    assert seen["mode=max_drop&value=-3"] == nothing
    assert seen["mode=max_drop&value=7"]["number"] == "100"
    for key in KEYS:
        low = seen[f"mode={key}&value=0"]
        assert low["says"].startswith("Not reached: with every layer as narrow")
        assert low["disabled"]
        assert low["plan"] == ""
        whole = seen[f"mode={key}&value=1"]
        assert whole["number"] == "99.9"
        assert whole["costs"][KEYS.index(key)] <= 0.999 * getattr(graph.cost(), key)
        assert whole["slider"][0] == whole["slider"][1]
    # What is not understood changes nothing.
    assert seen["mode=speed&value=1"] == seen["mode=size_bytes&value=99"] == seen["explorer"]
    assert seen["mode=macs"]["plan"]


HANDLED = """(() => {
  const at = (name) => document.getElementById(`explorer-${name}`);
  const told = () => [at("command").textContent, at("slider").getAttribute("aria-valuetext")];
  const fire = (element, kind) => element.dispatchEvent(new Event(kind, { bubbles: true }));
  const seen = [told()];
  at("slider").value = Number(at("slider").value) + 1;
  fire(at("slider"), "input");
  seen.push(told());
  at("number").value = "12.34";
  fire(at("number"), "input");
  seen.push(told());
  at("number").value = "";
  fire(at("number"), "input");
  seen.push(told());
  for (const mode of ["params", "max_drop"]) {
    const radio = document.querySelector(`input[value=${mode}]`);
    radio.checked = true;
    fire(radio, "change");
    seen.push(told());
  }
  return seen;
})()"""


@pytest.mark.browser
def test_hands_move_it_as_the_address_does(tmp_path):
    page = tmp_path / "sens.html"
    noisy_curves(network(["chain", "residual"])).write_page(page)
    seen = browser.visited(page, ["mode=max_drop&value=0.05"], HANDLED)[0]
    line = "plan = curves.plan({})".format
    typed = [line("max_drop=0.1234"), "max drop 12.3 %"]
    assert seen == [
        [line("max_drop=0.05"), "max drop 5.00 %"],
        [line("max_drop=0.052"), "max drop 5.20 %"],
        typed,
        typed,  # nothing typed is no number
        [line("budget=fw.Budget(params=0.5)"), "Parameters 50.0 % of dense"],
        typed,  # what it was is remembered
    ]


@pytest.mark.browser
def test_the_page_runs_under_its_own_policy_and_speaks_of_the_command_line(tmp_path):
    graph = network(["chain"])
    page = tmp_path / "sens.html"
    line = "flyweight prune -c 'my <net>.yaml'"
    cutting = Cutting(command=f"{line} --sensitivities s.json", ratios_command=line)
    write_page(noisy_curves(graph), page, graph, cutting=cutting, subject=Subject("my <net>", line))
    document = browser.shown(page, "mode=params&value=0.6")
    told = browser.text_of(document, "explorer-command")
    assert told == f"{line} --sensitivities s.json --budget params=0.6"
    exactly = browser.text_of(document, "explorer-ratios")
    assert exactly.startswith(f"{line} --pruned-params blocks.")
    made = PruningPlan.from_json(browser.text_of(document, "explorer-plan"))
    names, ratios = exactly.split("--pruned-params ")[1].split(" --pruned-ratios ")
    numbers = map(float, ratios.strip('"').split())
    asked = dict(zip(names.split(","), numbers, strict=True))
    assert plan(graph, asked, inexact=True) == made


def test_a_page_is_small_and_fetches_nothing(tmp_path):
    graph = network(["chain", "residual"])
    curves = noisy_curves(graph)
    curves.write_page(tmp_path / "sens.html")
    text = (tmp_path / "sens.html").read_text()
    assert len(text) < 80_000
    assert "default-src 'none'" in text
    assert "<link" not in text
    assert " src=" not in text
    data = text.split('id="explorer-data">')[1].split("</script>")[0]
    assert json.loads(data)["baseline"] == 0.8


def test_a_page_needs_a_graph_and_other_metrics_are_no_percentages(tmp_path):
    curves = Sensitivity("score", 12.5, {"0.weight": (Point(0.5, 11.0),)})
    with pytest.raises(PlanError, match="must have a graph"):
        curves.write_page(tmp_path / "sens.html")
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)).eval()
    graph = fw.trace(model, (torch.rand(1, 3, 4, 4),))
    curves.write_page(tmp_path / "sens.html", graph=graph)
    text = (tmp_path / "sens.html").read_text()
    assert "before any cut, 12.5<" in text
    assert "data-fraction" not in text.split("<script")[0]
