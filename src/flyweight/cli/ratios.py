"""`--pruned-params` and `--pruned-ratios`, the way several commands take them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flyweight.errors import PlanError

if TYPE_CHECKING:
    from flyweight.recipe.config import PruneConfig
    from flyweight.recipe.cut import Cut


@dataclass(frozen=True)
class Ratios:
    """What `--pruned-params` and `--pruned-ratios` say."""

    params: str
    ratios: str

    @property
    def given(self) -> bool:
        """Whether the command line says anything."""
        return bool(self.params or self.ratios)

    def cut(self, default: "PruneConfig", criterion: str = "") -> "Cut":
        """Return what to cut: from the command line if it says, else from the config.

        Raises:
            PlanError: A ratio is no number, or the lists are not equally long.
        """
        from flyweight.pruning import split_list
        from flyweight.recipe.cut import Cut

        chosen = criterion or default.criterion
        if not self.given:
            return Cut(default.params, default.ratios, chosen, default.round_to)
        numbers = tuple(_number(text) for text in split_list(self.ratios))
        return Cut(tuple(split_list(self.params)), numbers, chosen, default.round_to)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise PlanError(
            f"A ratio must be a number between 0 and 1. Received '{text}' in --pruned-ratios. "
            "Write 0.5 to remove half."
        ) from error
