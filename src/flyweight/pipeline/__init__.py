"""Pipelines: the stages of training, pruning, exporting and measuring, one by one or as a chain.

Names load on first use, so that importing this package imports no torch.
"""

from typing import TYPE_CHECKING

from flyweight.on_demand import names_on_demand

if TYPE_CHECKING:  # For editors and type checkers; `HOMES` has the same names at run time.
    from flyweight.config.reading import known_configs as known_configs
    from flyweight.config.reading import load_config as load_config
    from flyweight.config.scanning import SensitivityOptions as SensitivityOptions
    from flyweight.config.settings import Config as Config
    from flyweight.measuring.measure import measure as bench  # noqa: F401 - the command's name
    from flyweight.pipeline.chain import CHAIN as CHAIN
    from flyweight.pipeline.chain import forget as forget
    from flyweight.pipeline.chain import run_chain as run_chain
    from flyweight.pipeline.demo import demo_chain as demo_chain
    from flyweight.pipeline.evaluation import Evaluated as Evaluated
    from flyweight.pipeline.evaluation import evaluate_checkpoint as evaluate_checkpoint
    from flyweight.pipeline.explorer_inputs import write_scan_page as write_scan_page
    from flyweight.pipeline.model_source import ModelSource as ModelSource
    from flyweight.pipeline.networks import kind_of as kind_of
    from flyweight.pipeline.pricing import Priced as Priced
    from flyweight.pipeline.pricing import price as price
    from flyweight.pipeline.pruning_text import cost_table as cost_table
    from flyweight.pipeline.pruning_text import plan_notes as plan_notes
    from flyweight.pipeline.rendered_report import Reported as Reported
    from flyweight.pipeline.rendered_report import report as report
    from flyweight.pipeline.results import Benchmarked as Benchmarked
    from flyweight.pipeline.results import Distilled as Distilled
    from flyweight.pipeline.results import Exported as Exported
    from flyweight.pipeline.results import LayersTimed as LayersTimed
    from flyweight.pipeline.results import Pruned as Pruned
    from flyweight.pipeline.results import Quantized as Quantized
    from flyweight.pipeline.results import Scanned as Scanned
    from flyweight.pipeline.results import Trained as Trained
    from flyweight.pipeline.stage import Inputs as Inputs
    from flyweight.pipeline.stage import Stage as Stage
    from flyweight.pipeline.stages.bench import save_measurements as save_measurements
    from flyweight.pipeline.stages.distill import DistillOptions as DistillOptions
    from flyweight.pipeline.stages.distill import distill as distill
    from flyweight.pipeline.stages.export import export as export
    from flyweight.pipeline.stages.layers import LayersOptions as LayersOptions
    from flyweight.pipeline.stages.layers import time_layers as time_layers
    from flyweight.pipeline.stages.layers import (
        time_layers_of_checkpoint as time_layers_of_checkpoint,
    )
    from flyweight.pipeline.stages.prune import PruneOptions as PruneOptions
    from flyweight.pipeline.stages.prune import prune as prune
    from flyweight.pipeline.stages.quantize import QuantizeOptions as QuantizeOptions
    from flyweight.pipeline.stages.quantize import quantization_losses as quantization_losses
    from flyweight.pipeline.stages.quantize import quantize as quantize
    from flyweight.pipeline.stages.scan import merge_scans as merge_scans
    from flyweight.pipeline.stages.scan import scan as scan
    from flyweight.pipeline.stages.train import train as train
    from flyweight.pipeline.starter import start as start_config  # noqa: F401 - `start` of a config
    from flyweight.workspace import Workspace as Workspace

# Public name to the module it lives in and its name there.
HOMES = {
    "Benchmarked": "flyweight.pipeline.results:Benchmarked",
    "CHAIN": "flyweight.pipeline.chain:CHAIN",
    "Config": "flyweight.config.settings:Config",
    "DistillOptions": "flyweight.pipeline.stages.distill:DistillOptions",
    "Distilled": "flyweight.pipeline.results:Distilled",
    "Evaluated": "flyweight.pipeline.evaluation:Evaluated",
    "Exported": "flyweight.pipeline.results:Exported",
    "Inputs": "flyweight.pipeline.stage:Inputs",
    "LayersOptions": "flyweight.pipeline.stages.layers:LayersOptions",
    "LayersTimed": "flyweight.pipeline.results:LayersTimed",
    "ModelSource": "flyweight.pipeline.model_source:ModelSource",
    "Priced": "flyweight.pipeline.pricing:Priced",
    "PruneOptions": "flyweight.pipeline.stages.prune:PruneOptions",
    "Pruned": "flyweight.pipeline.results:Pruned",
    "QuantizeOptions": "flyweight.pipeline.stages.quantize:QuantizeOptions",
    "Quantized": "flyweight.pipeline.results:Quantized",
    "Reported": "flyweight.pipeline.rendered_report:Reported",
    "Scanned": "flyweight.pipeline.results:Scanned",
    "SensitivityOptions": "flyweight.config.scanning:SensitivityOptions",
    "Stage": "flyweight.pipeline.stage:Stage",
    "Trained": "flyweight.pipeline.results:Trained",
    "Workspace": "flyweight.workspace:Workspace",
    "bench": "flyweight.measuring.measure:measure",
    "cost_table": "flyweight.pipeline.pruning_text:cost_table",
    "demo_chain": "flyweight.pipeline.demo:demo_chain",
    "distill": "flyweight.pipeline.stages.distill:distill",
    "evaluate_checkpoint": "flyweight.pipeline.evaluation:evaluate_checkpoint",
    "export": "flyweight.pipeline.stages.export:export",
    "forget": "flyweight.pipeline.chain:forget",
    "kind_of": "flyweight.pipeline.networks:kind_of",
    "known_configs": "flyweight.config.reading:known_configs",
    "load_config": "flyweight.config.reading:load_config",
    "merge_scans": "flyweight.pipeline.stages.scan:merge_scans",
    "plan_notes": "flyweight.pipeline.pruning_text:plan_notes",
    "price": "flyweight.pipeline.pricing:price",
    "prune": "flyweight.pipeline.stages.prune:prune",
    "quantization_losses": "flyweight.pipeline.stages.quantize:quantization_losses",
    "quantize": "flyweight.pipeline.stages.quantize:quantize",
    "report": "flyweight.pipeline.rendered_report:report",
    "run_chain": "flyweight.pipeline.chain:run_chain",
    "save_measurements": "flyweight.pipeline.stages.bench:save_measurements",
    "scan": "flyweight.pipeline.stages.scan:scan",
    "start_config": "flyweight.pipeline.starter:start",
    "time_layers": "flyweight.pipeline.stages.layers:time_layers",
    "time_layers_of_checkpoint": "flyweight.pipeline.stages.layers:time_layers_of_checkpoint",
    "train": "flyweight.pipeline.stages.train:train",
    "write_scan_page": "flyweight.pipeline.explorer_inputs:write_scan_page",
}

__all__ = sorted(HOMES)

__getattr__ = names_on_demand(__name__, HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *HOMES})
