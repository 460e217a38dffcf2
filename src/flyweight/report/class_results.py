"""Values of a report by class: metric of every class, and confusion matrices."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

_STRICT = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
_Text = Annotated[str, Field(min_length=1)]
_Count = Annotated[int, Field(ge=0)]


class ClassResult(BaseModel):
    """One class.

    Attributes:
        name: Of the class.
        count: What the split has of it, in `ClassResults.counted`.
        values: Metric of each stage, from 0 to 1; None where it is not defined.
    """

    model_config = _STRICT

    name: _Text
    count: _Count
    values: tuple[float | None, ...]


class ClassResults(BaseModel):
    """The metric of every class at every stage.

    Attributes:
        metric: Name of the metric: "AP at IoU 0.5".
        counted: What `ClassResult.count` counts: "objects", "images" or "pixels".
        stages: Names of the stages.
        classes: The classes in the order of their indices.
    """

    model_config = _STRICT

    metric: _Text
    counted: _Text
    stages: tuple[_Text, ...]
    classes: tuple[ClassResult, ...]

    @model_validator(mode="after")
    def _has_a_value_per_stage(self) -> Self:
        if any(len(found.values) != len(self.stages) for found in self.classes):
            raise ValueError("every class must have one value per stage")
        return self


class Confusion(BaseModel):
    """What one stage predicts for every true class.

    Attributes:
        stage: Name of the stage.
        counted: "images" or "pixels".
        labels: Class names.
        counts: A row per true class, a column per predicted class.
    """

    model_config = _STRICT

    stage: _Text
    counted: _Text
    labels: tuple[_Text, ...]
    counts: tuple[tuple[_Count, ...], ...]

    @model_validator(mode="after")
    def _is_square(self) -> Self:
        size = len(self.labels)
        if len(self.counts) != size or any(len(row) != size for row in self.counts):
            raise ValueError("a confusion matrix must have a row and a column per class")
        return self
