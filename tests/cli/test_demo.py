"""The demo's options; `test_end_to_end.py` runs the chain itself."""

from pathlib import Path
from types import SimpleNamespace

import pytest

SMALL = ("width=0.1", "input_size=64")


@pytest.fixture
def chain(monkeypatch):
    """Do not run the chain; return how it would have been called, with the folders forgotten."""
    calls = []
    report = SimpleNamespace(to_json=lambda: '{"rows": []}')
    result = SimpleNamespace(report=report, page=Path("run/report.html"))

    def run_chain(name, settings, folder, *, progress):
        calls.append((name, settings.width, folder))
        return {"report": result}

    monkeypatch.setattr("flyweight.pipeline.chain.run_chain", run_chain)
    monkeypatch.setattr("flyweight.pipeline.chain.forget", lambda folder: calls.append(folder))
    monkeypatch.setattr("flyweight.report.markdown.comparison_table", lambda _: "the table")
    return calls


def test_the_chain_runs_with_the_config_and_its_overrides(flyweight, chain):
    answer = flyweight("demo", "-o", *SMALL, "--output-dir", "run")
    assert answer.out == "the table\nreport: run/report.html\n"
    assert chain == [("demo_digits", 0.1, Path("run"))]
    assert flyweight("demo", "-c", "./configs/demo_digits.yml", "--json").json == {"rows": []}
    assert chain[1][2] == Path("output/demo")


def test_fresh_forgets_what_is_finished(flyweight, chain):
    assert flyweight("demo", "--fresh", "--output-dir", "run").status == 0
    assert chain[0] == Path("run")
