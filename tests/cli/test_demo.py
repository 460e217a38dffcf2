"""The demo's options; `test_end_to_end.py` runs the chain itself."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from flyweight.pipeline.chain import CHAIN
from flyweight.pipeline.demo import demo_chain

DEMO = demo_chain("digit_detector", ())[2]
SMALL = ("width=0.1", "input_size=64")


@pytest.fixture
def chain(monkeypatch):
    """Do not run the chain; return how it would have been called, with the folders forgotten."""
    calls = []
    report = SimpleNamespace(to_json=lambda: '{"rows": []}')
    result = SimpleNamespace(report=report, page=Path("run/report.html"))

    def run_chain(name, settings, folder, *, stages, fresh, progress):
        if fresh:
            calls.append(folder)
        calls.append((name, settings.width, folder, [stage.name for stage in stages]))
        return {"report": result}

    monkeypatch.setattr("flyweight.pipeline.chain.run_chain", run_chain)
    monkeypatch.setattr("flyweight.report.markdown.result_table", lambda _: "the table")
    return calls


def test_the_chain_runs_with_the_config_and_its_overrides(flyweight, chain):
    answer = flyweight("demo", "-o", *SMALL, "--output-dir", "run")
    assert answer.out == "the table\nreport: run/report.html\n"
    assert chain == [("digit_detector", 0.1, Path("run"), [stage.name for stage in CHAIN])]
    assert flyweight("demo", "-c", "./configs/demo_digits.yml", "--json").json == {"rows": []}
    assert chain[1][2] == Path("output/demo")


def test_a_trained_network_is_taken_unless_it_shall_be_trained_again(flyweight, chain):
    assert flyweight("demo").status == 0
    assert flyweight("demo", "--from-scratch").status == 0
    assert [stages for *_, stages in chain] == [[stage.name for stage in DEMO]] * 2
    assert "control" in chain[0][3]


def test_fresh_forgets_what_is_finished(flyweight, chain):
    assert flyweight("demo", "--fresh", "--output-dir", "run").status == 0
    assert chain[0] == Path("run")
