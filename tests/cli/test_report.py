from datetime import UTC, datetime

from flyweight.config.reading import load_config
from flyweight.pipeline.inputs import Saver
from flyweight.pipeline.network_plans import build_model
from flyweight.report import quantities
from flyweight.report.render import render_all
from flyweight.report.rows import Report, Row
from flyweight.sensitivity import Point, Sensitivity

SMALL = ("width=0.1", "input_size=64", "data.size=64", "data.val_count=3")
CONFIG = load_config("demo_digits", SMALL)[1]


def test_a_report_shows_the_scan_that_lies_in_its_folder(flyweight, tmp_path):
    dense = tmp_path / "run" / "dense" / "best_model.safetensors"
    Saver(CONFIG, tuple("0123456789"), "detect")(build_model(CONFIG), {}, dense)
    rows = (Row(stage="dense", quantities={"m": quantities.metric("mAP", 0.8, method="all")}),)
    line = f"flyweight demo -o {' '.join(SMALL)} --output-dir run"
    report = Report(
        title="t",
        subject="s",
        created=datetime.now(UTC),
        command=line,
        environment={},
        rows=rows,
    )
    render_all(report, tmp_path / "run")
    assert "explorer" not in flyweight("report", "run").out
    points = (Point(0.25, 0.7), Point(0.5, 0.6))
    curves = Sensitivity("map", 0.8, {"yolo_block.0.0.0.conv.weights": points}, local=True)
    curves.save(tmp_path / "run" / "sens.json")
    answer = flyweight("report", "run", "--json")
    assert "does not say what it was measured on" in answer.err
    assert answer.json["explorer"]["command"].endswith(
        "-o weights=run/dense/best_model.safetensors --sensitivities run/sens.json"
    )
    assert 'id="explorer-data"' in (tmp_path / "run" / "report.html").read_text()
    dense.unlink()
    again = flyweight("report", "run")
    assert "note: 'run/sens.json' is not shown: " in again.err
    assert 'id="explorer-data"' in (tmp_path / "run" / "report.html").read_text()
