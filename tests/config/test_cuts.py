"""The four kinds of cuts are the same values from YAML, the command line and Python."""

import os
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace

import pytest

from flyweight.config.budget import Budget
from flyweight.config.cut_options import CutOptions
from flyweight.config.cuts import (
    CRITERION_NAMES,
    TAYLOR,
    BudgetCut,
    MaxDropCut,
    RankingCut,
    RatioCut,
    build_cut,
    plain_cut,
)
from flyweight.config.pruning import PruneConfig
from flyweight.config.reading import load_config
from flyweight.errors import ConfigError, PlanError
from flyweight.pruning import CRITERIA

HALF = Budget(macs=0.5)
MILLION = Budget(params=1_000_000)
FAST = Budget(latency_ms=3.5)

SAME = [
    (
        RatioCut(("a.weight", "b.weight"), (0.5, 0.25)),
        "{params: [a.weight, b.weight], ratios: [0.5, 0.25]}",
        CutOptions(params="a.weight,b.weight", ratios="0.5 0.25"),
    ),
    (
        RatioCut(("all",), (0.5,), "bn_scale", 8),
        "{params: [all], ratios: [0.5], criterion: bn_scale, round_to: 8}",
        CutOptions(params="all", ratios="0.5", criterion="bn_scale"),
    ),
    (
        MaxDropCut("s.json", 0.02),
        "{scan: s.json, max_drop: 0.02}",
        CutOptions(scan="s.json", max_drop=0.02),
    ),
    (
        MaxDropCut("DEFAULT", 0.05, "l2_norm"),
        "{scan: DEFAULT, max_drop: 0.05, criterion: l2_norm}",
        CutOptions(scan="DEFAULT", criterion="l2_norm"),
    ),
    (
        BudgetCut("s.json", HALF, round_to=8),
        "{scan: s.json, budget: {macs: 0.5}, round_to: 8}",
        CutOptions(scan="s.json", budget="macs=0.5"),
    ),
    (
        BudgetCut("s.json", MILLION, "taylor"),
        "{scan: s.json, budget: params=1e6, criterion: taylor}",
        CutOptions(scan="s.json", budget="params=1e6", criterion="taylor"),
    ),
    (
        BudgetCut("s.json", FAST, latency_table="t.json"),
        "{scan: s.json, budget: {latency_ms: 3.5}, latency_table: t.json}",
        CutOptions(scan="s.json", budget="latency_ms=3.5", latency_table="t.json"),
    ),
    (
        RankingCut("l1_norm", HALF),
        "{ranking: l1_norm, budget: macs=0.5}",
        CutOptions(budget="macs=0.5"),
    ),
    (
        RankingCut("taylor", Budget(size_bytes=250_000), 4),
        "{ranking: taylor, budget: {size_bytes: 250000}, round_to: 4}",
        CutOptions(budget="size_bytes=250000", criterion="taylor"),
    ),
]


def of_yaml(section, *overrides):
    empty = ("prune={}", f"prune={section}", *overrides)
    return load_config("demo_digits", empty)[1].prune.cut


@pytest.mark.parametrize(("cut", "section", "options"), SAME)
def test_every_way_gives_the_same_cut(cut, section, options):
    assert of_yaml(section) == cut
    # What the command line does not say (rounding) comes from the config.
    assert options.cut(PruneConfig(round_to=cut.round_to)) == cut
    # With another cut in the config, the command line goes before it.
    other = PruneConfig(scan="other.json", max_drop=0.3, round_to=cut.round_to)
    assert options.cut(other) == cut
    said = {key: value for key, value in vars(cut).items() if key not in ("criterion", "round_to")}
    said.pop("rule", None)
    assert build_cut(said, criterion=cut.criterion, round_to=cut.round_to) == cut
    section_of_cut = PruneConfig.model_validate(
        {**said, "criterion": cut.criterion, "round_to": cut.round_to}
    )
    assert section_of_cut.cut == cut
    assert PruneConfig.model_validate_json(section_of_cut.model_dump_json()).cut == cut
    assert hash(replace(cut)) == hash(cut)
    assert plain_cut(replace(cut)) == plain_cut(cut)
    with pytest.raises(FrozenInstanceError):
        cut.round_to = 2


def test_overrides_build_a_cut_key_by_key():
    keys = ("prune.params=[]", "prune.ratios=[]", "prune.scan=s.json")
    _, config = load_config("demo_digits", [*keys, "prune.budget.macs=0.5"])
    assert config.prune.cut == BudgetCut("s.json", HALF)
    _, config = load_config("demo_digits", [*keys, "prune.budget=params=2e6"])
    assert config.prune.cut == BudgetCut("s.json", Budget(params=2e6))


def test_plain_values_tell_kinds_apart():
    found = [str(plain_cut(cut)) for cut, _, _ in SAME]
    assert len(set(found)) == len(SAME)


def test_a_config_that_does_not_prune_has_no_cut():
    assert of_yaml("{}") is None
    assert PruneConfig().cut is None
    assert build_cut({"params": (), "scan": "", "budget": None}) is None


def test_layers_alone_are_those_to_scan_and_no_cut():
    section = PruneConfig(params=("a", "b"))
    assert section.params == ("a", "b")
    with pytest.raises(PlanError, match=r"equally many\. Received 2 parameters and 0 ratios"):
        _ = section.cut


def test_criteria_have_the_names_of_those_that_exist():
    assert set(CRITERION_NAMES) == {*CRITERIA, TAYLOR}


WRONG = [
    ("{budget: {mac: 0.5}, ranking: l1_norm}", "Received 'mac'. Nearest: 'macs'"),
    ("{budget: mac=0.5, ranking: l1_norm}", "Received 'mac=0.5'. Nearest: 'macs'"),
    ("{budget: {macs: 1.0}, ranking: l1_norm}", "Received macs=1.0. Write macs=0.5"),
    ("{budget: {macs: 0.5, params: 0.5}, scan: s}", "must limit one thing"),
    ("{budget: {macs: few}, scan: s}", "Received macs='few'"),
    ("{budget: 0.5, scan: s}", "must be a mapping of one quantity"),
    ("{ranking: l1norm, budget: macs=0.5}", "Nearest: 'l1_norm'"),
    ("{ranking: first, budget: macs=0.5}", "Received 'first'"),
    ("{ranking: l1_norm, budget: latency_ms=3}", "must limit macs, params or size_bytes"),
    ("{ranking: l1_norm, budget: macs=0.5, criterion: l2_norm}", "Leave criterion out"),
    ("{params: [a], ratios: [0.5], criterion: l1norm}", "Nearest: 'l1_norm'"),
    ("{criterion: l1norm}", "Nearest: 'l1_norm'"),
    ("{params: [a], ratios: [1.5]}", "Received 1.5 for 'a'"),
    ("{params: [a], ratios: [0]}", "strictly between 0 and 1"),
    ("{params: [a, a], ratios: [0.5, 0.5]}", "named once"),
    ("{params: [all, a], ratios: [0.5, 0.5]}", "must stand alone"),
    ("{scan: s, max_drop: 1.5}", "between 0 and 1. Received 1.5"),
    ("{scan: s}", "Received scan. Add budget or max_drop."),
    ("{max_drop: 0.1}", "Received max_drop. Add scan."),
    ("{budget: macs=0.5}", "Received budget. Add ranking or scan."),
    ("{ranking: l1_norm}", "Received ranking. Add budget."),
    ("{scan: s, max_drop: 0.1, budget: macs=0.5}", "Received scan, max_drop and budget"),
    ("{params: [a], ratios: [0.5], scan: s, max_drop: 0.1}", "exactly one way"),
    ("{scan: s, ranking: l1_norm, budget: macs=0.5}", "Received scan, ranking and budget"),
    ("{scan: s, budget: latency_ms=3}", "must come with a table of layers measured"),
    ("{scan: s, budget: macs=0.5, latency_table: t}", "must come with a latency budget"),
    ("{scan: s, max_drop: 0.1, latency_table: t}", "must come with a scan and a latency budget"),
    ("{latency_table: t}", "exactly one way"),
    ("{scan: s, max_drop: 0.1, round_to: 0}", "greater than 0"),
    ("{scan: s, maxdrop: 0.1}", "Nearest: 'prune.max_drop'"),
]


@pytest.mark.parametrize(("section", "said"), WRONG)
def test_a_section_that_is_no_cut_is_refused_when_the_config_is_read(section, said):
    with pytest.raises(ConfigError) as caught:
        of_yaml(section)
    message = str(caught.value)
    assert said in message
    assert "demo_digits" in message
    assert "\n" not in message


def test_the_presets_lists_and_another_kind_together_are_refused_with_the_way_out():
    with pytest.raises(ConfigError, match=r"Leave out .*params=\[\] and ratios=\[\]"):
        load_config("demo_digits", ["prune.scan=s.json", "prune.max_drop=0.1"])


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"scan": "s", "max_drop": True}, "Received True"),
        ({"scan": "s", "max_drop": -0.1}, "Received -0.1"),
        ({"scan": "s", "budget": HALF, "round_to": 0}, "round_to must be"),
        ({"scan": "s", "budget": HALF, "round_to": 1.5}, "round_to must be"),
        ({"ranking": "l1_norm", "budget": HALF, "round_to": True}, "round_to must be"),
    ],
)
def test_python_is_refused_as_yaml_is(keys, said):
    with pytest.raises(PlanError, match=said):
        build_cut(
            {key: value for key, value in keys.items() if key != "round_to"},
            round_to=keys.get("round_to", 1),
        )


REFUSED = [
    ("--budget", "mac=0.5"),
    ("--budget", "macs=1.0"),
    ("-o", "prune.budget.mac=0.5"),
    ("-o", "prune.ranking=l1norm", "-o", "prune.budget.macs=0.5"),
    ("-o", "prune.scan=s.json", "-o", "prune.max_drop=0.1"),
    ("--budget", "macs=0.5", "--prune-criterion", "l1norm"),
    ("--prune-criterion", "l1norm"),
    ("-p", "a", "--pruned-ratios", "1.5"),
    ("-p", "a,b", "--pruned-ratios", "0.5"),
    ("-p", "a", "--pruned-ratios", "0.5", "--budget", "macs=0.5"),
    ("-p", "a", "--pruned-ratios", "0.5", "--max-drop", "0.1"),
    ("--sensitivities", "s.json", "--budget", "latency_ms=3"),
    ("--budget", "latency_ms=3"),
    ("-o", "prune.ratios=[0.5]"),
]


def test_the_command_line_refuses_before_torch_is_loaded(tmp_path):
    code = (
        "import sys; from flyweight.cli.main import run\n"
        f"for arguments in {REFUSED!r}:\n"
        "    for dry in ([], ['--dry-run']):\n"
        "        status = run(['prune', '-c', 'demo_digits', *arguments, *dry])\n"
        "        print(status, 'torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=os.environ,
    )
    assert set(done.stdout.splitlines()) == {"2 False"}
    assert len(done.stdout.splitlines()) == 2 * len(REFUSED)
    lines = done.stderr.splitlines()
    assert len(lines) == 2 * len(REFUSED)
    assert all(line.startswith("error: ") for line in lines)
    assert list(tmp_path.iterdir()) == []
