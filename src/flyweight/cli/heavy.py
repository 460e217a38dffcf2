"""Names that need heavy packages, loaded when a command first uses them.

Command files use this table instead of importing, so that neither `COMMAND --help` nor the message
about a refused option waits for torch.
"""

from typing import TYPE_CHECKING

from flyweight.on_demand import names_on_demand

if TYPE_CHECKING:  # What type checkers see; `HOMES` says the same at run time.
    from flyweight.cli.deploy import Protocol as Protocol
    from flyweight.cli.deploy import bench as bench
    from flyweight.cli.deploy import export as export
    from flyweight.cli.deploy import one_count as one_count
    from flyweight.cli.deploy import report as report
    from flyweight.cli.layers import Request as LayersRequest  # noqa: F401
    from flyweight.cli.layers import layers as measure_layers  # noqa: F401
    from flyweight.cli.prune import Options as PruneOptions  # noqa: F401
    from flyweight.cli.prune import Request as PruneRequest  # noqa: F401
    from flyweight.cli.prune import dry_run as dry_run
    from flyweight.cli.prune import prune as prune
    from flyweight.cli.sensitivity import Files as ScanFiles  # noqa: F401
    from flyweight.cli.sensitivity import How as ScanHow  # noqa: F401
    from flyweight.cli.sensitivity import Request as ScanRequest  # noqa: F401
    from flyweight.cli.sensitivity import merge as merge_scans  # noqa: F401
    from flyweight.cli.sensitivity import scan as scan
    from flyweight.cli.train import demo as demo
    from flyweight.cli.train import evaluate as evaluate
    from flyweight.cli.train import train as train
    from flyweight.cli.tree import group_tree as group_tree
    from flyweight.cli.tree import reason_of as reason_of
    from flyweight.config.cut_options import CutOptions as CutOptions
    from flyweight.config.data import DataConfig as DataConfig
    from flyweight.config.reading import known_configs as known_configs
    from flyweight.config.reading import load_config as load_config
    from flyweight.data.check import require_sound as require_sound
    from flyweight.data.images import read_pixels as read_pixels
    from flyweight.data.layouts.box_readers import read_boxes as read_boxes
    from flyweight.data.layouts.convert import convert as convert
    from flyweight.data.usable import leave_out_bad as leave_out_bad
    from flyweight.data.usable import left_out as left_out
    from flyweight.pipeline.drawn_images import draw_file as draw_file
    from flyweight.pipeline.inputs import load_model as load_model
    from flyweight.pipeline.model_source import ModelSource as Source  # noqa: F401
    from flyweight.pipeline.network_plans import trace_model as trace_model
    from flyweight.pipeline.network_plans import weightless as weightless
    from flyweight.pipeline.prediction import from_checkpoint as predictor_of_checkpoint  # noqa: F401
    from flyweight.pipeline.prediction import from_onnx as predictor_of_onnx  # noqa: F401
    from flyweight.pipeline.prediction import prediction_text as prediction_text
    from flyweight.pipeline.preflight import weights_path as weights_path
    from flyweight.zoo import SPECS as SPECS
    from flyweight.zoo.sources.libraries import LIBRARIES as LIBRARIES

HOMES = {
    "CutOptions": "flyweight.config.cut_options:CutOptions",
    "DataConfig": "flyweight.config.data:DataConfig",
    "LIBRARIES": "flyweight.zoo.sources.libraries:LIBRARIES",
    "LayersRequest": "flyweight.cli.layers:Request",
    "Protocol": "flyweight.cli.deploy:Protocol",
    "PruneOptions": "flyweight.cli.prune:Options",
    "PruneRequest": "flyweight.cli.prune:Request",
    "SPECS": "flyweight.zoo:SPECS",
    "ScanFiles": "flyweight.cli.sensitivity:Files",
    "ScanHow": "flyweight.cli.sensitivity:How",
    "ScanRequest": "flyweight.cli.sensitivity:Request",
    "Source": "flyweight.pipeline.model_source:ModelSource",
    "bench": "flyweight.cli.deploy:bench",
    "convert": "flyweight.data.layouts.convert:convert",
    "demo": "flyweight.cli.train:demo",
    "draw_file": "flyweight.pipeline.drawn_images:draw_file",
    "dry_run": "flyweight.cli.prune:dry_run",
    "evaluate": "flyweight.cli.train:evaluate",
    "export": "flyweight.cli.deploy:export",
    "group_tree": "flyweight.cli.tree:group_tree",
    "known_configs": "flyweight.config.reading:known_configs",
    "leave_out_bad": "flyweight.data.usable:leave_out_bad",
    "left_out": "flyweight.data.usable:left_out",
    "load_config": "flyweight.config.reading:load_config",
    "load_model": "flyweight.pipeline.inputs:load_model",
    "measure_layers": "flyweight.cli.layers:layers",
    "merge_scans": "flyweight.cli.sensitivity:merge",
    "one_count": "flyweight.cli.deploy:one_count",
    "prediction_text": "flyweight.pipeline.prediction:prediction_text",
    "predictor_of_checkpoint": "flyweight.pipeline.prediction:from_checkpoint",
    "predictor_of_onnx": "flyweight.pipeline.prediction:from_onnx",
    "prune": "flyweight.cli.prune:prune",
    "read_boxes": "flyweight.data.layouts.box_readers:read_boxes",
    "read_pixels": "flyweight.data.images:read_pixels",
    "reason_of": "flyweight.cli.tree:reason_of",
    "report": "flyweight.cli.deploy:report",
    "require_sound": "flyweight.data.check:require_sound",
    "scan": "flyweight.cli.sensitivity:scan",
    "trace_model": "flyweight.pipeline.network_plans:trace_model",
    "train": "flyweight.cli.train:train",
    "weightless": "flyweight.pipeline.network_plans:weightless",
    "weights_path": "flyweight.pipeline.preflight:weights_path",
}

__getattr__ = names_on_demand(__name__, HOMES)
