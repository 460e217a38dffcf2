"""What each layer takes at each width on the runtime: measured once, then looked up."""

from flyweight.latency.measuring import measure_layers
from flyweight.latency.prices import LatencyPrices
from flyweight.latency.table import LayerTable, read_table

__all__ = ["LatencyPrices", "LayerTable", "measure_layers", "read_table"]
