"""Measuring protocol: how long to measure, and under which conditions."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from flyweight.errors import MeasureError


@dataclass(frozen=True)
class BenchConfig:
    """The measuring protocol; docs/bench.md gives the reason of each choice.

    Attributes:
        runs: Timed inferences per row. A row that is too slow for them may take three times its
            `seconds`; then it gets fewer, at least one per block, and a note states the number.
        seconds: Wall-clock time of the timed inferences of one row.
        blocks: Interleaved blocks per row; the bootstrap resamples them.
        warmup: Untimed inferences after loading, before the first block.
        spinning: Let idle threads of the runtime spin. Faster on a quiet machine with spare cores,
            much slower on a busy one.
        pin: Bind each measuring process to as many cores as it has threads, where the operating
            system supports it.
        shapes: Input name to shape, for inputs that are not static in the file; the empty name
            means the only input.
        seed: Seed of the random input values and of the bootstrap.
        timeout_seconds: Seconds that a measuring process may take for one answer before it is
            stopped.
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
