"""Names that need heavy packages, loaded when a command first uses them.

Command files use this table, and the one of `flyweight.pipeline`, instead of importing, so that
neither `COMMAND --help` nor the message about a refused option waits for torch.
"""

from typing import TYPE_CHECKING

from flyweight.on_demand import names_on_demand

if TYPE_CHECKING:  # For type checkers; `HOMES` has the same names at run time.
    from flyweight.cli.tree import group_tree as group_tree
    from flyweight.cli.tree import reason_of as reason_of
    from flyweight.config.cut_options import CutOptions as CutOptions
    from flyweight.config.cut_options import split_list as split_list
    from flyweight.config.data import DataConfig as DataConfig
    from flyweight.config.measuring import BenchConfig as BenchConfig
    from flyweight.config.scanning import SensitivityOptions as SensitivityOptions
    from flyweight.data.check import require_sound as require_sound
    from flyweight.data.check_split import class_counts as class_counts
    from flyweight.data.images import read_pixels as read_pixels
    from flyweight.data.layouts.box_readers import read_boxes as read_boxes
    from flyweight.data.layouts.convert import convert as convert
    from flyweight.data.layouts.split_names import usual_splits as usual_splits
    from flyweight.data.problem_kinds import KINDS as KINDS
    from flyweight.data.usable import leave_out_bad as leave_out_bad
    from flyweight.data.usable import notes_on as notes_on
    from flyweight.measuring.census import take_census as take_census
    from flyweight.measuring.census_text import to_records as census_records  # noqa: F401
    from flyweight.measuring.census_text import to_text as census_text  # noqa: F401
    from flyweight.measuring.latency_prices import LatencyPrices as LatencyPrices
    from flyweight.measuring.latency_table import read_table as read_table
    from flyweight.measuring.measurement_text import to_records as measurement_records  # noqa: F401
    from flyweight.measuring.measurement_text import to_text as measurement_table  # noqa: F401
    from flyweight.pipeline.contact_sheet import write_contact_sheet as write_contact_sheet
    from flyweight.pipeline.data_check import inspect_data as inspect_data
    from flyweight.pipeline.data_check import summary_of as summary_of
    from flyweight.pipeline.drawn_images import draw_file as draw_file
    from flyweight.pipeline.inputs import load_model as load_model
    from flyweight.pipeline.network_plans import trace_model as trace_model
    from flyweight.pipeline.network_plans import weightless as weightless
    from flyweight.pipeline.prediction import from_checkpoint as predictor_of_checkpoint  # noqa: F401
    from flyweight.pipeline.prediction import from_onnx as predictor_of_onnx  # noqa: F401
    from flyweight.pipeline.prediction import prediction_text as prediction_text
    from flyweight.pruning.make_plan import mixed_notes as mixed_notes
    from flyweight.report.markdown import result_table as result_table
    from flyweight.zoo import SPECS as SPECS
    from flyweight.zoo.sources.libraries import LIBRARIES as LIBRARIES

HOMES = {
    "BenchConfig": "flyweight.config.measuring:BenchConfig",
    "CutOptions": "flyweight.config.cut_options:CutOptions",
    "DataConfig": "flyweight.config.data:DataConfig",
    "KINDS": "flyweight.data.problem_kinds:KINDS",
    "LIBRARIES": "flyweight.zoo.sources.libraries:LIBRARIES",
    "LatencyPrices": "flyweight.measuring.latency_prices:LatencyPrices",
    "SPECS": "flyweight.zoo:SPECS",
    "SensitivityOptions": "flyweight.config.scanning:SensitivityOptions",
    "census_records": "flyweight.measuring.census_text:to_records",
    "census_text": "flyweight.measuring.census_text:to_text",
    "class_counts": "flyweight.data.check_split:class_counts",
    "convert": "flyweight.data.layouts.convert:convert",
    "draw_file": "flyweight.pipeline.drawn_images:draw_file",
    "group_tree": "flyweight.cli.tree:group_tree",
    "inspect_data": "flyweight.pipeline.data_check:inspect_data",
    "leave_out_bad": "flyweight.data.usable:leave_out_bad",
    "load_model": "flyweight.pipeline.inputs:load_model",
    "measurement_records": "flyweight.measuring.measurement_text:to_records",
    "measurement_table": "flyweight.measuring.measurement_text:to_text",
    "mixed_notes": "flyweight.pruning.make_plan:mixed_notes",
    "notes_on": "flyweight.data.usable:notes_on",
    "prediction_text": "flyweight.pipeline.prediction:prediction_text",
    "predictor_of_checkpoint": "flyweight.pipeline.prediction:from_checkpoint",
    "predictor_of_onnx": "flyweight.pipeline.prediction:from_onnx",
    "read_boxes": "flyweight.data.layouts.box_readers:read_boxes",
    "read_pixels": "flyweight.data.images:read_pixels",
    "read_table": "flyweight.measuring.latency_table:read_table",
    "reason_of": "flyweight.cli.tree:reason_of",
    "require_sound": "flyweight.data.check:require_sound",
    "result_table": "flyweight.report.markdown:result_table",
    "split_list": "flyweight.config.cut_options:split_list",
    "summary_of": "flyweight.pipeline.data_check:summary_of",
    "take_census": "flyweight.measuring.census:take_census",
    "trace_model": "flyweight.pipeline.network_plans:trace_model",
    "usual_splits": "flyweight.data.layouts.split_names:usual_splits",
    "weightless": "flyweight.pipeline.network_plans:weightless",
    "write_contact_sheet": "flyweight.pipeline.contact_sheet:write_contact_sheet",
}

__getattr__ = names_on_demand(__name__, HOMES)
