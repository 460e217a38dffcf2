"""The benchmark of distillation: which runs it makes, and what it says of them."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

HERE = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(HERE))

import distillation_gains  # noqa: E402

import distillation  # noqa: E402 - found beside the results


def options(**changes):
    given = {"case": ["clothes"], "cut": ["heavy", "light"], "method": ["plain", "auto", "dense"]}
    given |= {"seed": [0, 1], "steps": None, "held_out": False, "note": ""}
    given |= {"data": Path("DATA"), "dense": Path("DENSE"), "out": Path("OUT")}
    return SimpleNamespace(**{**given, **changes})


def test_every_cut_method_and_seed_once_and_the_dense_network_for_no_cut():
    runs = list(distillation.wanted(options()))
    assert len({run.folder(Path()) for run in runs}) == len(runs) == 2 * (2 * 2 + 1)
    assert {(run.cut, run.method) for run in runs if run.method == "dense"} == {("none", "dense")}
    assert {run.steps for run in runs} == {distillation.CASES["clothes"].steps}


def test_losses_are_chosen_on_training_images_with_one_seed_and_half_of_the_steps():
    runs = list(distillation.wanted(options(held_out=True)))
    assert {(run.cut, run.seed, run.tested_on) for run in runs} == {("heavy", 0, "held-out")}
    assert {run.steps for run in runs} == {distillation.CASES["clothes"].steps // 2}
    assert {"plain", "auto", "kl", "kl+pkd"} <= {run.method for run in runs}


@pytest.mark.parametrize("held_out", [False, True])
def test_the_command_of_a_run_makes_that_run(held_out, monkeypatch):
    for run in distillation.wanted(options(held_out=held_out)):
        words = distillation.command_of(run, options()).split()
        monkeypatch.setattr(sys, "argv", words[1:])
        assert list(distillation.wanted(distillation.parsed())) == [run]


def test_strategies_are_joined_with_the_weights_of_their_table():
    joined = distillation.strategy_of("kl+pkd")
    table = distillation.STRATEGIES
    assert joined.terms == (*table["kl"].terms, *table["pkd"].terms)
    assert distillation.strategy_of("auto") is None
    (other,) = distillation.strategy_of("pkd@heads:5").terms
    assert (other.loss, other.on, other.weight) == ("pkd", "heads", 30.0)


def row(method, seed, metric, cut="heavy", steps=300, clip_norm=2.0):
    known = {"case": "clothes", "cut": cut, "method": method, "seed": str(seed)}
    known |= {
        "clip_norm": str(clip_norm),
        "steps": str(steps),
        "tested_on": "test",
        "metric_name": "top1",
        "images": "372",
    }
    return {
        **known,
        "metric": str(metric),
        "metric_before": "0.1",
        "dense_metric": "0.85",
        "macs_share": "0.2",
        "note": "",
    }


def test_a_gain_is_that_of_pairs_of_equal_seeds_with_its_interval():
    rows = [row("plain", seed, value) for seed, value in enumerate((0.5, 0.6, 0.55))]
    rows += [row("auto", seed, value) for seed, value in enumerate((0.6, 0.7, 0.68, 0.9))]
    rows += [row("dense", seed, 0.86, cut="none") for seed in range(3)]
    (found,) = distillation_gains.gain_rows(rows)
    assert (found["runs"], found["plain"], found["metric"]) == (3, "0.5500", "0.6600")
    # Gains 0.10, 0.10 and 0.13: standard deviation 0.01732, quantile of t with 2 degrees 4.3027.
    assert float(found["gain"]) == pytest.approx(0.11)
    half = 4.3027 * 0.017320508 / 3**0.5
    assert float(found["gain_low"]) == pytest.approx(0.11 - half, abs=1e-4)
    assert float(found["gain_high"]) == pytest.approx(0.11 + half, abs=1e-4)
    assert found["dense_longer"] == "0.8600"


def test_no_gain_without_a_student_that_had_no_teacher_and_no_interval_of_one_pair():
    assert list(distillation_gains.gain_rows([row("auto", 0, 0.6)])) == []
    (found,) = distillation_gains.gain_rows([row("plain", 0, 0.5), row("auto", 0, 0.6)])
    assert "gain_low" not in found
    for other in (row("plain", 0, 0.5, steps=100), row("plain", 0, 0.5, clip_norm=8.0)):
        assert list(distillation_gains.gain_rows([other, row("auto", 0, 0.6)])) == []
