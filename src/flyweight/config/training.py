"""Settings of a training run, and the learning rate as a function of the step."""

import math
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Precision = Literal["32", "bf16", "16"]

# A run may be resumed with other values of these: they do not change what is computed.
HARMLESS = frozenset({"checkpoint_every", "log_every", "num_workers"})


class TrainConfig(BaseModel):
    """Training of a model; all durations are counted in optimizer steps.

    Attributes:
        steps: Optimizer steps of the whole run.
        batch_size: Images per step, summed over all devices.
        learning_rate: Base learning rate, which the schedule scales.
        rate_factors: Factors of the learning rate of parameters whose names match a pattern, such
            as `backbone.*: 0.1`; the last pattern that matches counts.
        momentum: Momentum of SGD and RMSProp; first beta of AdamW.
        weight_decay: Weight decay of weights. Normalisations and biases have none, as in the
            originals.
        optimizer: "sgd", "adamw" or "rmsprop".
        schedule: "step" multiplies by `gamma` at every milestone, "cosine" falls to 0 at `steps`,
            "poly" is `(1 - step / steps) ** power`.
        milestones: Steps at which "step" changes the rate.
        gamma: Factor at a milestone.
        power: Exponent of "poly".
        warmup_steps: Steps during which the rate rises linearly.
        warmup_start_factor: Share of the rate at which that rise starts.
        ema_decay: Decay of the averaged weights that are evaluated and saved; None does not
            average.
        precision: "32", or mixed with "bf16" or "16".
        accelerator: "auto" uses a GPU if there is one.
        devices: Number of devices, or "auto" for all of the machine.
        channels_last: Keep images and weights as NHWC in memory; the values are the same.
        clip_norm: Largest L2 norm of all gradients together; None does not clip.
        evaluate_every: Steps between evaluations; None evaluates after the last step only.
        checkpoint_every: Steps between training states to resume from; one is also saved at every
            evaluation.
        log_every: Steps between lines of the logs.
        num_workers: Processes that load images.
        seed: Seed of all random numbers.
        patience: Number of successive evaluations without improvement after which training stops.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(gt=0)
    batch_size: int = Field(default=8, gt=0)
    learning_rate: float = Field(default=1e-3, gt=0, allow_inf_nan=False)
    rate_factors: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(
        default_factory=dict
    )
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0, allow_inf_nan=False)
    optimizer: Literal["sgd", "adamw", "rmsprop"] = "sgd"
    schedule: Literal["step", "cosine", "poly"] = "step"
    milestones: tuple[int, ...] = ()
    gamma: float = Field(default=0.1, gt=0, le=1)
    power: float = Field(default=0.9, gt=0)
    warmup_steps: int = Field(default=0, ge=0)
    warmup_start_factor: float = Field(default=0.0, ge=0, le=1)
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    precision: Precision = "32"
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: int | Literal["auto"] = Field(default=1)
    channels_last: bool = True
    clip_norm: float | None = Field(default=None, gt=0)
    evaluate_every: int | None = Field(default=None, gt=0)
    checkpoint_every: int | None = Field(default=250, gt=0)
    log_every: int = Field(default=20, gt=0)
    num_workers: int = Field(default=2, ge=0)
    seed: int = Field(default=0, ge=0)
    patience: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if list(self.milestones) != sorted(set(self.milestones)) or any(
            not 0 < milestone < self.steps for milestone in self.milestones
        ):
            raise ValueError(
                f"milestones must rise within 1..{self.steps - 1} (steps - 1). "
                f"Received: {list(self.milestones)}."
            )
        if self.schedule != "step" and self.milestones:
            raise ValueError(
                f"milestones belong to schedule 'step'. Remove them or the '{self.schedule}'."
            )
        if self.warmup_steps > self.steps:
            raise ValueError(
                f"warmup_steps must be at most steps ({self.steps}). Received: {self.warmup_steps}."
            )
        if isinstance(self.devices, int) and self.devices < 1:
            raise ValueError(f"devices must be at least 1, or 'auto'. Received: {self.devices}.")
        return self


def learning_rate_at(config: TrainConfig, step: int) -> float:
    """Return the learning rate of the optimizer step with 0-based number `step`.

    The rate is the product of the schedule and of the linear warm-up, both counted from the first
    step, as the originals do.

    Example:
        >>> config = TrainConfig(steps=100, learning_rate=1.0, milestones=(60,), warmup_steps=4)
        >>> [learning_rate_at(config, step) for step in (0, 1, 4, 59, 60)]
        [0.0, 0.25, 1.0, 1.0, 0.1]
    """
    if config.schedule == "cosine":
        factor = 0.5 * (1.0 + math.cos(math.pi * step / config.steps))
    elif config.schedule == "poly":
        factor = (1.0 - step / config.steps) ** config.power
    else:
        factor = config.gamma ** sum(step >= milestone for milestone in config.milestones)
    if step < config.warmup_steps:
        start = config.warmup_start_factor
        factor *= start + (1.0 - start) * step / config.warmup_steps
    return config.learning_rate * factor


def due(every: int | None, done: int, steps: int) -> bool:
    """Return whether an action of every `every` steps is due after `done` of `steps` steps.

    It is always due after the last step.

    Example:
        >>> [done for done in range(1, 8) if due(3, done, 7)]
        [3, 6, 7]
    """
    return done == steps or (every is not None and done % every == 0)
