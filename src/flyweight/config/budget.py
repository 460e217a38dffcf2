"""The budget of a pruned network: one limit on its cost."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import isfinite
from typing import Any, Protocol, Self

from flyweight.errors import PlanError, nearest

COUNTED = ("macs", "params", "size_bytes")
"""Quantities that the graph counts; their limit is a share kept or an amount."""
LATENCIES = ("latency_ms", "latency_share")
"""Quantities that only a runtime can measure."""
LEAST_AMOUNT = 1000
"""A limit of a counted quantity is an amount from here on."""


class Counts(Protocol):
    """The counted cost of a network, such as `flyweight.Cost`."""

    @property
    def macs(self) -> int:
        """Multiply-adds of one forward pass."""

    @property
    def params(self) -> int:
        """Learnable values."""

    @property
    def size_bytes(self) -> int:
        """Bytes of parameters and buffers."""


@dataclass(frozen=True)
class Budget:
    """What a network may cost; exactly one quantity is limited.

    `macs`, `params` and `size_bytes` below 1 are the share of the dense network's cost that is
    kept; from 1000 on they are an amount. Values between are refused, because they would be
    neither a share nor a sensible amount.

    Attributes:
        macs: Multiply-adds of one forward pass: a share kept, or an amount.
        params: Learnable values: a share kept, or an amount.
        size_bytes: Bytes of parameters and buffers: a share kept, or an amount.
        latency_ms: Milliseconds of one inference on the runtime. Never a share, because a network
            may take less than one millisecond.
        latency_share: Latency as a share of the dense network's, below 1.

    Raises:
        PlanError: Not exactly one quantity is given, or its value is out of range.

    Example:
        >>> Budget(macs=0.5).quantity
        'macs'
    """

    macs: float | None = None
    params: float | None = None
    size_bytes: float | None = None
    latency_ms: float | None = None
    latency_share: float | None = None

    def __post_init__(self) -> None:
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        given = {name: value for name, value in given.items() if value is not None}
        if len(given) != 1 or not all(map(_is_amount, given.values())):
            received = ", ".join(f"{name}={value!r}" for name, value in given.items()) or "nothing"
            raise PlanError(
                "A budget must limit one thing, by a number above 0. "
                f"Received {received}. Write for example macs=0.5 to keep half, or "
                "params=2_000_000."
            )
        ((name, value),) = given.items()
        if name in COUNTED and 1 <= value < LEAST_AMOUNT:
            raise PlanError(
                f"{name} of a budget must be below 1 (the share kept) or at least {LEAST_AMOUNT} "
                f"(an amount). Received {name}={value!r}. Write {name}=0.5 to keep half, or "
                f"{name}=2_000_000 for two million."
            )
        if name == "latency_share" and value >= 1:
            raise PlanError(
                "latency_share must be below 1, a share of the dense network's latency. Received "
                f"{value:g}. Give milliseconds as latency_ms."
            )

    def __str__(self) -> str:
        return f"{self.quantity}={self.value:.15g}"

    @property
    def quantity(self) -> str:
        """The name of the quantity that is limited."""
        return next(f.name for f in fields(self) if getattr(self, f.name) is not None)

    @property
    def value(self) -> float:
        """The limit as it was given."""
        return float(getattr(self, self.quantity))

    @property
    def measured(self) -> bool:
        """Whether the quantity can only be measured on a runtime."""
        return self.quantity in LATENCIES

    def limit(self, dense: Counts) -> float:
        """Return the limit as an amount, given the cost of the dense network.

        Raises:
            AttributeError: The budget limits latency, which a graph does not count.
        """
        return self.value * getattr(dense, self.quantity) if self.value < 1 else self.value

    def plain(self) -> dict[str, float]:
        """Return the budget as YAML and JSON have it: `{"macs": 0.5}`."""
        return {self.quantity: self.value}

    @classmethod
    def of(cls, given: "Budget | Mapping[str, Any] | str") -> "Budget":
        """Return the budget that a config or a caller gives.

        Args:
            given: A budget; a mapping of one quantity to its limit, as in YAML; or text that
                `parse` reads.

        Raises:
            PlanError: The quantity is unknown, or the limit is out of range.
        """
        if isinstance(given, cls):
            return given
        if isinstance(given, str):
            return cls.parse(given)
        if not isinstance(given, Mapping):
            raise PlanError(
                "A budget must be a mapping of one quantity to its limit. Received "
                f"{given!r}. Write for example: budget: {{macs: 0.5}}"
            )
        known = [f.name for f in fields(cls)]
        for name in given:
            if name not in known:
                raise PlanError(
                    f"A budget must limit one of {', '.join(known)}. Received '{name}'. "
                    f"{nearest(str(name), known)}"
                )
        return cls(**{name: _number(value) for name, value in given.items()})

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a budget as it is written on the command line: `macs=0.5`.

        Raises:
            PlanError: The text is not QUANTITY=NUMBER, or the limit is out of range.
        """
        name, _, value = (part.strip() for part in text.partition("="))
        known = [f.name for f in fields(cls)]
        number = _number(value)
        if name not in known or not _is_amount(number):
            hint = "" if name in known else f"{nearest(name, known)} "
            raise PlanError(
                f"A budget must read QUANTITY=NUMBER, with a number above 0. Received '{text}'. "
                f"{hint}Example: macs=0.5"
            )
        return cls(**{name: number})


def _is_amount(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and isfinite(value) and value > 0  # type: ignore[arg-type, operator]


def _number(value: Any) -> Any:
    """Return a number for its text: YAML 1.1 reads 2e6 as text."""
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value
