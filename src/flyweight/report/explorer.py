"""What the plan explorer needs to re-solve in the page: curves, prices and orders, as plain values.

The page's script (`templates/solving.js` and `explorer.js`) knows no network. It prices widths with
`products`, chooses them from `layers`, and writes the plan's JSON from `groups` and `numbers`.
"""

import base64
import struct
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

Size = tuple[int, tuple[tuple[int, int], ...]]
"""The size of an axis: a fixed part, and (place of a group, positions per channel) pairs."""


class _Value(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Spot(_Value):
    """One measured point of a curve.

    Attributes:
        ratio: Share of channels that left.
        value: The metric.
        loss: As a share of the metric before any cut; negative is a gain.
        interval: Ends of the 95 % interval of `value`, where there is one.
    """

    ratio: float
    value: float
    loss: float
    interval: tuple[float, float] | None = None


class Channels(_Value):
    """Channels that can only go together.

    Attributes:
        name: Of the group.
        size: How many.
        exact: Whether a cut equals zeroing the removed channels where they are read.
        touches: Every place on a tensor's axis, in the words of a plan's JSON; empty where no layer
            cuts the group.
    """

    name: str
    size: int
    exact: bool = True
    touches: str = ""


class Layer(_Value):
    """One curve, and how its layer is cut.

    Attributes:
        name: As the scan was asked for it.
        spots: Of rising ratio.
        orders: (place of a group, the order in which its channels leave, as `packed` has it).
        options: (channels that stay, predicted loss) of the widths that a budget may choose;
            empty where another layer speaks for the group.
    """

    name: str
    spots: tuple[Spot, ...] = Field(min_length=1)
    orders: tuple[tuple[int, str], ...]
    options: tuple[tuple[int, float], ...] = ()


class Priced(_Value):
    """Something that a network costs and a budget can limit.

    Attributes:
        key: As `Budget` calls it.
        label: For people.
        unit: A key of `units.UNITS`.
        option: What a command line needs besides the limit.
        predicted: Words for how the page comes by it where it is not exact.
    """

    key: str
    label: str
    unit: str
    option: str = ""
    predicted: str = ""


class Explorer(_Value):
    """Everything that the page's script works on.

    Attributes:
        metric: Its name.
        baseline: Its value before any cut.
        plan: A plan's JSON up to the value of `numbers`, from where on it depends on the widths.
        round_to: Multiple that the channels that stay are rounded to.
        groups: All groups of the network.
        layers: The curves.
        axes: Sizes of axes, each once.
        quantities: What can be limited. A new one is a row here and a factor in every product.
        products: (factors, one for each of `quantities`; places in `axes`). The cost is the sum of
            a factor times the sizes of the axes.
        numbers: Attributes that the modules' code counts channels with.
        command: The command line that cuts, up to the limit; empty where there is none.
        ratios_command: The same without a scan, up to names and ratios.
        notes: What the user should know of these curves.
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
        """Whether the metric reads as a percentage."""
        values = [spot.value for layer in self.layers for spot in layer.spots]
        return min(values) >= 0 and max(*values, self.baseline) <= 1


def packed(order: Sequence[int]) -> str:
    """Return whole numbers below 2^32 as base64 of four, or if they fit two, bytes each.

    The first byte says how many, so that the page can read both.

    Example:
        >>> packed([1, 0])
        'AgEAAAA='
    """
    kind, each = ("H", 2) if max(order, default=0) < 2**16 else ("I", 4)
    numbers = struct.pack(f"<B{len(order)}{kind}", each, *order)
    return base64.b64encode(numbers).decode()
