"""The `quantize` section of a config: what stays float, how ranges are chosen, whether to train."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    model_validator,
)

from flyweight.config.budget import Budget
from flyweight.config.training import TrainConfig
from flyweight.errors import PlanError

Mode = Literal["post", "aware"]
_RATE = 0.1


def latency_budget(given: Any) -> Budget:
    """Return the budget of a quantization that a config or a caller gives.

    Args:
        given: As `Budget.of` takes it.

    Raises:
        PlanError: It is no budget, or limits something else than latency.
    """
    budget = Budget.of(given)
    if not budget.measured:
        raise PlanError(
            "The budget of a quantization must limit latency_ms or latency_share. Received "
            f"{budget}. Prune for fewer {budget.quantity}: flyweight prune --budget {budget}"
        )
    return budget


def _budget(given: Any) -> Budget | None:
    try:
        return None if given is None else latency_budget(given)
    except PlanError as error:  # So that the message names the key.
        raise ValueError(str(error)) from error


def _plain(budget: Budget | None) -> dict[str, float] | None:
    return None if budget is None else budget.plain()


class QuantizeConfig(BaseModel):
    """What `flyweight quantize` does where the command line does not say it.

    Attributes:
        mode: "post" calibrates on a few images; "aware" trains the quantized network afterwards.
        skip: Layers that stay float, see `quantization.skipping.skipped`.
        images: Number of training images, without labels, to calibrate on.
        ranges: How the range of a tensor is chosen, see `quantization.quantize.QuantConfig`.
        percentile: Share of the values, in percent, that ranges of "percentile" keep on each side.
        weight_bits: 8, or 7 where the file shall be right on processors without VNNI, too.
        fix_dead_channels: Make constant channels constant before ranges are chosen.
        correct_bias: Let biases make up for what rounding adds to most values of a channel.
        equalize: Scale channels that depthwise convolutions read.
        exact: Let PyTorch and `bench.runtime` compute the same in every bit, see
            `quantization.exact`. Not with a choice of precisions.
        reconstruct: Choose roundings of weights together, of single "layers" or of "blocks", where
            the loss by layer is large; see `quantization.block_reconstruction`. Not with `equalize`
            or `exact`.
        reconstruct_steps: Steps of training for each layer or block.
        precision: "int8" for integers wherever the runtime has them; "auto" for integers where that
            is measured to be faster on `bench.runtime` and this machine, see
            `pipeline.precision_choice`.
        budget: The latency of the quantized network on `bench.runtime` and this machine, met with
            the least loss: `{latency_share: 0.25}`, or `{latency_ms: 10}`. It implies "auto".
        rewrite: Replace transposed convolutions whose kernel equals their stride by convolutions
            that compute the same, see `quantization.rewriting`.
        learned: What mode "aware" trains besides the weights: "lsq", "pact" or "fixed", see
            `quantization.quantization_plan.LearnedSteps`.
        hold_share: Share of the training at whose end weights keep their average integers; 0 never.
        train: Training of mode "aware"; None takes `finetune` with a tenth of its learning rate and
            without warm-up. Numbers have 32 bits in either case.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Mode = "post"
    skip: tuple[str, ...] = ()
    images: int = Field(default=16, gt=0)
    ranges: Literal["percentile", "mse", "minmax", "moving_average", "kl"] = "percentile"
    percentile: float = Field(default=99.99, gt=50, le=100)
    weight_bits: Literal[7, 8] = 8
    fix_dead_channels: bool = True
    correct_bias: bool = True
    equalize: bool = False
    exact: bool = False
    reconstruct: Literal["none", "layers", "blocks"] = "none"
    reconstruct_steps: int = Field(default=200, gt=0)
    precision: Literal["int8", "auto"] = "int8"
    budget: Annotated[Budget | None, BeforeValidator(_budget), PlainSerializer(_plain)] = None
    rewrite: bool = False
    learned: Literal["lsq", "pact", "fixed"] = "lsq"
    hold_share: float = Field(default=0.0, ge=0, lt=1)
    train: TrainConfig | None = None

    @model_validator(mode="after")
    def _weights_stay_in_place(self) -> Self:
        moved = next((name for name in ("equalize", "exact") if getattr(self, name)), None)
        if self.reconstruct != "none" and moved:
            raise ValueError(
                f"reconstruct compares layers with the float ones, which {moved} scales; leave one "
                "of them out"
            )
        return self

    @model_validator(mode="after")
    def _exact_has_no_choice(self) -> Self:
        if self.exact and self.chooses:
            raise ValueError(
                "exact holds where layers run on integers, and a choice of precisions leaves some "
                "in float, whose last bits differ between runtimes; leave out exact, or precision "
                "and budget"
            )
        return self

    @property
    def chooses(self) -> bool:
        """Whether precisions are chosen by measured latency."""
        return self.precision == "auto" or self.budget is not None

    def training(self, finetune: TrainConfig) -> TrainConfig:
        """Return how to train, where `finetune` is how pruned networks are trained."""
        if self.train is not None:
            return self.train.model_copy(update={"precision": "32"})
        rate = _RATE * finetune.learning_rate
        changes = {"learning_rate": rate, "warmup_steps": 0, "precision": "32"}
        return finetune.model_copy(update=changes)
