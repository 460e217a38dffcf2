"""`flyweight train`: a trained network from a config."""

from flyweight import pipeline
from flyweight.cli.console import note_busy_machine, show, show_json
from flyweight.cli.options import ConfigName, Json, Overrides, Resume
from flyweight.pipeline.preflight import require_paths
from flyweight.report.text_table import metrics_table


def train(
    config: ConfigName, opt: Overrides = None, resume: Resume = False, json: Json = False
) -> None:
    """Train; save best and last checkpoint."""
    name, settings = pipeline.load_config(config, opt or ())
    require_paths(settings)
    note_busy_machine()
    result = pipeline.train(name, settings, resume=resume, progress=True)
    if json:
        record = {"metrics": result.metrics, "checkpoint": result.checkpoint}
        show_json({**record, "seconds": result.seconds})
        return
    show(metrics_table(result.metrics))
    show(f"saved {result.checkpoint}")
