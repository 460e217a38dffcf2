"""The `distill` section of a config: who teaches the network, by which losses, and for how long."""

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from flyweight.errors import ConfigError, nearest

AUTO = "auto"
"""The strategy that is chosen by what the student returns."""
STRATEGY_NAMES = (
    *("kl", "dkd", "l2", "split", "crosskd", "mimic"),
    *("fsp", "attention", "cwd", "pkd", "mgd", "fgd"),
)
"""Names of strategies: the keys of `distillation.STRATEGIES`, which needs torch."""
STRATEGY_WORDS: Mapping[str, str] = {
    "l2_distill": "l2",
    "l2_distiil": "l2",
    "split_distill": "split",
    "split_distiil": "split",
}
"""Names of the original tools and their documents, typing errors included, with today's."""


def require_strategy(name: str) -> None:
    """Check the name of a strategy.

    Raises:
        ConfigError: There is none of this name.
    """
    known = (AUTO, *STRATEGY_NAMES)
    if name not in (*known, *STRATEGY_WORDS):
        raise ConfigError(
            f"A strategy must be one of {', '.join(known)}. Received '{name}'. "
            f"{nearest(name, known)}"
        )


class DistillConfig(BaseModel):
    """How `flyweight distill` and chains train a student against a teacher.

    Attributes:
        in_chain: Whether a chain has this stage; a config with the section has it.
        teacher: Checkpoint of the teacher; None takes the dense network that a pruned student was
            cut from.
        teacher_config: Config of a teacher whose file of weights is no checkpoint.
        teacher_pretrained: That file of weights.
        strategy: One of `distillation.STRATEGIES`, or `auto`, which chooses by the task.
        use_fine_grained_loss: The original tools' choice for YOLOv3: true is `split`, false `l2`.
        weight: Factor of all losses of the strategy.
        temperature: Of softmaxes; None is 4 for classes and 1 for pixels and channels.
        taps: Operations or modules to compare features at; none means the automatic choice.
        recipe: `short` derives the training from the config's and from how much was removed;
            `finetune` trains as the config's `finetune` section says, or else as `train`.
        steps: Optimizer steps; None takes those of `finetune`, or else a third of those of `train`.
        precision: Of the teacher; `auto` is bfloat16 where the processor computes with it.
        similarity_images: Images for which features are compared before and after.
        cache_bytes: Bytes that the teacher's outputs may take on disk, so that the same images need
            no second run of it; 0 keeps none. They come again in every epoch where the augmentation
            is not random, and in another run of the same seed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    in_chain: bool = True
    teacher: str | None = None
    teacher_config: str | None = None
    teacher_pretrained: str | None = None
    strategy: str = AUTO
    use_fine_grained_loss: bool | None = None
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    temperature: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    taps: tuple[str, ...] = ()
    recipe: Literal["short", "finetune"] = "short"
    steps: int | None = Field(default=None, gt=0)
    precision: Literal["auto", "32", "bf16"] = "auto"
    similarity_images: int = Field(default=16, ge=2)
    cache_bytes: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _one_teacher(self) -> Self:
        if self.teacher is not None and self.teacher_config is not None:
            raise ValueError("give teacher (a checkpoint) or teacher_config, not both")
        if (self.teacher_config is None) != (self.teacher_pretrained is None):
            raise ValueError("teacher_config and teacher_pretrained must be given together")
        if self.use_fine_grained_loss is not None and self.strategy != AUTO:
            raise ValueError("give strategy or use_fine_grained_loss, not both")
        return self

    @property
    def names_teacher(self) -> bool:
        """Whether the section says who teaches."""
        return self.teacher is not None or self.teacher_config is not None

    @property
    def strategy_name(self) -> str:
        """The name of the strategy, by either of the two keys."""
        if self.use_fine_grained_loss is None:
            return self.strategy
        return "split" if self.use_fine_grained_loss else "l2"
