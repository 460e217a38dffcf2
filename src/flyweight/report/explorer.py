"""Data of the plan explorer, with which the script of the page makes plans: curves, costs, orders.

The script (`templates/solving.js` and `explorer.js`) does not depend on the network. It computes
costs with `products`, chooses widths from `layers`, and writes the plan as JSON from `groups` and
`numbers`. The field names are the keys of the JSON in the page and in report.json.
"""

import base64
import struct
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

Size = tuple[int, tuple[tuple[int, int], ...]]
"""Size of an axis: a fixed part, and pairs (index of a group, positions per channel)."""


class _Value(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Spot(_Value):
    """One measured point of a curve.

    Attributes:
        ratio: Share of the channels removed.
        value: The metric.
        loss: Loss as a share of the metric before any cut. A negative loss is a gain.
        interval: Ends of the 95 % interval of `value`; None for a value on all data.
    """

    ratio: float
    value: float
    loss: float
    interval: tuple[float, float] | None = None


class Channels(_Value):
    """A group of coupled channels, which can only be removed together.

    Attributes:
        name: Name of the group.
        size: Number of channels.
        exact: Whether a cut equals zeroing the removed channels at their consumers.
        touches: Every axis of every tensor that the group covers, as JSON in the format of a plan;
            empty if no layer cuts the group.
    """

    name: str
    size: int
    exact: bool = True
    touches: str = ""


class Layer(_Value):
    """The curve of one layer, and how the layer is cut.

    Attributes:
        name: Name of the layer as given to the scan.
        spots: Measured points, by ascending ratio.
        orders: Pairs (index of a group, order in which its channels are removed, see `packed`).
        options: Pairs (channels kept, predicted loss) of the widths that a budget may choose.
            Empty if the curve of another layer is used for the group.
    """

    name: str
    spots: tuple[Spot, ...] = Field(min_length=1)
    orders: tuple[tuple[int, str], ...]
    options: tuple[tuple[int, float], ...] = ()


class Priced(_Value):
    """A cost that a budget can limit.

    Attributes:
        key: Name of the field of `Budget`.
        label: Name for the reader.
        unit: A key of `units.UNITS`.
        option: Command-line options that the budget needs besides the limit.
        predicted: Sentence on how the cost is predicted; empty for an exact cost.
    """

    key: str
    label: str
    unit: str
    option: str = ""
    predicted: str = ""


class Explorer(_Value):
    """All data of the plan explorer.

    Attributes:
        metric: Name of the metric.
        baseline: Value of the metric before any cut.
        plan: JSON of a plan up to the value of `numbers`; the rest depends on the widths.
        round_to: Kept channels are rounded to a multiple of this number.
        groups: All groups of the network.
        layers: The curves.
        axes: Sizes of axes, without repetition.
        quantities: Costs that can be limited. A further cost is one more row here and one more
            factor in every product.
        products: Pairs (factors, one for each of `quantities`; indices into `axes`). A cost is the
            sum over all products of the factor times the sizes of the axes.
        numbers: Attributes of modules whose value is a number of channels.
        command: Command line that prunes, without the limit; empty if there is none.
        ratios_command: Command line that prunes without a scan, without names and ratios.
        notes: Remarks on these curves for the reader.
    """

    metric: str
    baseline: float = Field(gt=0)
    plan: str
    round_to: int = Field(default=1, ge=1)
    groups: tuple[Channels, ...]
    layers: tuple[Layer, ...] = Field(min_length=1)
    axes: tuple[Size, ...]
    quantities: tuple[Priced, ...] = Field(min_length=1)
    products: tuple[tuple[tuple[int | float, ...], tuple[int, ...]], ...]
    numbers: tuple[tuple[str, Size], ...] = ()
    command: str = ""
    ratios_command: str = ""
    notes: tuple[str, ...] = ()

    @property
    def is_fraction(self) -> bool:
        """Whether the metric is shown as a percentage."""
        values = [spot.value for layer in self.layers for spot in layer.spots]
        return min(values) >= 0 and max(*values, self.baseline) <= 1


def packed(order: Sequence[int]) -> str:
    """Return integers from 0 to 2^32 - 1 as base64, with two bytes each if they fit, else four.

    The first byte is the number of bytes per integer.

    Example:
        >>> packed([1, 0])
        'AgEAAAA='
    """
    kind, each = ("H", 2) if max(order, default=0) < 2**16 else ("I", 4)
    numbers = struct.pack(f"<B{len(order)}{kind}", each, *order)
    return base64.b64encode(numbers).decode()
