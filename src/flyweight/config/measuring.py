"""Measuring protocol: how long to measure, and under which conditions."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from flyweight.errors import MeasureError


@dataclass(frozen=True)
class BenchConfig:
    """The measuring protocol; docs/bench.md explains each choice.

    Attributes:
        runs: Timed inferences wanted per row. A row too slow for them may take three times its
            `seconds`; after that it gets fewer and a note says so, but always one per block.
        seconds: Wall time to spend on the timed inferences of one row.
        blocks: Interleaved blocks per row; the bootstrap resamples them.
        warmup: Untimed inferences after loading, before the first block.
        spinning: Let idle runtime threads spin. Faster on a quiet machine with cores to spare,
            ruinous on a busy one.
        pin: Bind each measuring process to as many cores as it has threads, where the system can.
        shapes: Input name to shape, for inputs that are not static in the file; the empty name
            stands for the only input.
        seed: Of the random input values and of the bootstrap.
        timeout_seconds: How long a child may take for one answer before it is killed.
        precision: Precision of float operations; the runtime must support it on this machine.
    """

    runs: int = 100
    seconds: float = 5.0
    blocks: int = 20
    warmup: int = 5
    spinning: bool = False
    pin: bool = True
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    seed: int = 0
    timeout_seconds: float = 300.0
    precision: str = "float32"

    def __post_init__(self) -> None:
        limits = {"runs": 1, "blocks": 8, "warmup": 0}
        for name, least in limits.items():
            if getattr(self, name) < least:
                raise MeasureError(
                    f"'{name}' must be at least {least}. Received: {getattr(self, name)}."
                )
        if not self.seconds > 0:
            raise MeasureError(f"'seconds' must be above 0. Received: {self.seconds}.")
