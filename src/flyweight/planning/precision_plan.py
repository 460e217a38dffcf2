"""Choice of precisions: which layers run on integers, from measured times and losses.

Every layer takes its time in float or on integers. Between two layers of different precision a
runtime converts what flows, which costs time for each value. Times add up, so the choice is the
knapsack of `planning.knapsack` with two options for each layer and a cost for each pair.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from flyweight.errors import PlanError
from flyweight.planning.knapsack import Option, Program, cheapest, solved
from flyweight.quantization.layer_flow import Flow

FORMAT = 1
SLACK = 0.02
"""Share of the fastest choice's time that may be given for less loss: no measurement shows it."""
_FLOAT, _INTEGER = 32, 8
_MILLION = 1e6


@dataclass(frozen=True)
class LayerCosts:
    """What a layer costs in each precision.

    Attributes:
        float_ms: Its time in float.
        integer_ms: Its time on integers; None where it cannot run on integers.
        loss: What its quantization alone costs, in any unit.
        reason: Why it cannot run on integers; empty where it can.
    """

    float_ms: float
    integer_ms: float | None
    loss: float = 0.0
    reason: str = ""


@dataclass(frozen=True)
class PrecisionTable:
    """What was measured of a network on one runtime, machine and number of threads.

    Attributes:
        made_on: Conditions, as text: `runtime` (name and version), `cpu`, `threads`.
        layers: Operation to its costs, in the order of execution.
        flows: What flows between layers.
        conversion_ms: Time to convert a million values between precisions.
    """

    made_on: Mapping[str, str]
    layers: Mapping[str, LayerCosts]
    flows: tuple[Flow, ...] = ()
    conversion_ms: float = 0.0

    @property
    def free(self) -> tuple[str, ...]:
        """The layers that can run on integers, in the order of execution."""
        return tuple(name for name, one in self.layers.items() if one.integer_ms is not None)

    @property
    def alternating(self) -> tuple[str, ...]:
        """Every second of these: most values are converted where only they run on integers."""
        return self.free[::2]

    def converted(self, integer: Collection[str]) -> float:
        """Return how many values are converted between layers that both have a choice.

        A layer without a choice has conversions around it in any file that was measured, which
        count as time of its neighbours on integers.
        """
        free, chosen = frozenset(self.free), frozenset(integer)
        return sum(
            flow.elements
            for flow in self.flows
            if {flow.source, flow.target} <= free
            and (flow.source in chosen) != (flow.target in chosen)
        )

    def predict_ms(self, integer: Collection[str]) -> float:
        """Return the time of the network where these layers run on integers.

        Args:
            integer: Some of `free`.
        """
        chosen = frozenset(integer)
        layers = sum(
            one.integer_ms if name in chosen and one.integer_ms is not None else one.float_ms
            for name, one in self.layers.items()
        )
        return layers + self.conversion_ms * self.converted(chosen) / _MILLION

    def with_conversions(self, integer: Collection[str], measured_ms: float) -> "PrecisionTable":
        """Return the table with the price of conversions that a mixed file shows.

        Args:
            integer: Layers of that file that run on integers.
            measured_ms: Its time.
        """
        plain = replace(self, conversion_ms=0.0)
        values = self.converted(integer) / _MILLION
        price = max(measured_ms - plain.predict_ms(integer), 0.0) / values if values else 0.0
        return replace(self, conversion_ms=price)


@dataclass(frozen=True)
class PrecisionPlan:
    """Which layers run on integers.

    Attributes:
        integer: Their operations, in the order of execution.
        floats: Every other layer to the reason, with milliseconds.
        predicted_ms: Time of the network as the table predicts it.
        float_ms: The same, all layers in float.
        loss: Summed loss of the integer layers.
        made_on: Conditions of the measurement, see `PrecisionTable`.
    """

    integer: tuple[str, ...]
    floats: Mapping[str, str]
    predicted_ms: float
    float_ms: float
    loss: float
    made_on: Mapping[str, str] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        return {
            "format": FORMAT,
            "made_on": dict(self.made_on),
            "integer": list(self.integer),
            "float": dict(self.floats),
            "predicted_ms": round(self.predicted_ms, 6),
            "float_ms": round(self.float_ms, 6),
            "loss": self.loss,
        }

    def to_json(self) -> str:
        """Return the plan as text; equal plans give equal text."""
        return json.dumps(self.plain(), indent=1, allow_nan=False) + "\n"


def choose_precisions(table: PrecisionTable, limit_ms: float | None = None) -> PrecisionPlan:
    """Return the precision of every layer.

    Without a limit, the network is as fast as any choice makes it, to within `SLACK`, and has the
    least loss of such choices. With one, it has the least loss within the limit.

    Args:
        table: What was measured.
        limit_ms: Time that the network may take, as the table predicts it.

    Raises:
        PlanError: No choice is predicted to be within the limit.
    """
    free = table.free
    if not free:
        return plan_with(table, ())
    program = _program(table)
    fastest = _integers(cheapest(program))
    least = table.predict_ms(fastest)
    if limit_ms is not None and least > limit_ms:
        raise _beyond(table, limit_ms, least)
    limit = least * (1 + SLACK) if limit_ms is None else limit_ms
    # Where float alone is within the limit, it is chosen: it has no loss.
    return plan_with(table, _integers(solved(program, limit)))


def _program(table: PrecisionTable) -> Program:
    free = table.free
    options = {
        name: (Option(_FLOAT, 0.0), Option(_INTEGER, table.layers[name].loss)) for name in free
    }
    program = Program(options)
    program.fixed = sum(one.float_ms for one in table.layers.values() if one.integer_ms is None)
    for name in free:
        one = table.layers[name]
        program.add_each(name, [one.float_ms, one.integer_ms or 0.0])
    for flow in table.flows:
        if flow.source in options and flow.target in options and flow.source != flow.target:
            price = table.conversion_ms * flow.elements / _MILLION
            program.add_pairs(flow.source, flow.target, [[0.0, price], [price, 0.0]])
    return program


def _integers(chosen: Mapping[str, Option]) -> tuple[str, ...]:
    return tuple(name for name, option in chosen.items() if option.keep == _INTEGER)


def plan_with(table: PrecisionTable, integer: tuple[str, ...]) -> PrecisionPlan:
    """Return the plan where exactly these layers run on integers.

    Args:
        table: What was measured.
        integer: Some of the table's `free` layers.
    """
    floats = {
        name: one.reason or _reason(table, integer, name)
        for name, one in table.layers.items()
        if name not in integer
    }
    return PrecisionPlan(
        integer,
        floats,
        table.predict_ms(integer),
        table.predict_ms(()),
        sum(table.layers[name].loss for name in integer),
        table.made_on,
    )


def _reason(table: PrecisionTable, integer: tuple[str, ...], name: str) -> str:
    """Return why a layer is better in float than on integers, where the others are as chosen."""
    one = table.layers[name]
    own = (one.integer_ms or 0.0) - one.float_ms
    more = table.predict_ms((*integer, name)) - table.predict_ms(integer)
    times = f"{one.float_ms:.3f} ms in float, {one.integer_ms:.3f} ms on integers"
    if more <= 0:
        return f"its loss of {one.loss:.2g} is not worth {-more:.3f} ms: {times}"
    conversions = f", {more - own:+.3f} ms of conversions" if round(more - own, 3) else ""
    return f"no faster on integers: {times}{conversions}"


def _beyond(table: PrecisionTable, limit_ms: float, least_ms: float) -> PlanError:
    return PlanError(
        "A latency budget must be one that a choice of precisions meets. Received "
        f"{limit_ms:.3f} ms; the fastest choice takes {least_ms:.3f} of {table.predict_ms(()):.3f} "
        f"ms in float, as measured on {table.made_on.get('runtime', 'the runtime')}. Give more, or "
        "prune the network first."
    )
