"""Agreement of a student and its teacher: what a strategy needs to compare them."""

from typing import Any

from torch import nn

from flyweight.distillation.distillation_plan import DistillationPlan
from flyweight.distillation.seen_tensors import SeenNetwork
from flyweight.distillation.strategies import Kind, Strategy
from flyweight.errors import ConfigError
from flyweight.origin import origin_of
from flyweight.zoo import is_own_name, spec_of
from flyweight.zoo.detectors.yolo import YoloGeometry


def geometry_of(model: nn.Module) -> Any:
    """Return anchors or priors of a detector; None where there are none, or none are known."""
    origin = origin_of(model)
    if origin is not None and not is_own_name(origin.architecture):
        return spec_of(origin.architecture).geometry
    return getattr(model, "geometry", None)


def kind_of_outputs(model: nn.Module, seen: SeenNetwork) -> Kind:
    """Return what a network returns, by its outputs and its geometry."""
    shapes = [head.shape for head in seen.heads]
    batch = seen.input_shape[0]
    if isinstance(geometry_of(model), YoloGeometry):
        return "yolo"
    if not shapes or any(len(shape) not in (2, 4) or shape[0] != batch for shape in shapes):
        return "features"
    if all(len(shape) == 2 for shape in shapes):
        return "classes"
    return "segments" if len(shapes) == 1 else "maps"


def yolo_classes(model: nn.Module, seen: SeenNetwork) -> int | None:
    """Return the number of classes of YOLO heads; None for other networks."""
    geometry = geometry_of(model)
    if not isinstance(geometry, YoloGeometry) or not seen.heads:
        return None
    return seen.heads[0].shape[1] // len(geometry.masks[0]) - 5


def require_fit(
    student: nn.Module, teacher: nn.Module, plan: DistillationPlan, strategy: Strategy
) -> None:
    """Check that a strategy can compare two networks.

    Args:
        student: The student.
        teacher: The teacher.
        plan: What corresponds.
        strategy: What is compared.

    Raises:
        ConfigError: Outputs differ in number, classes or anchors, or there is no tap to compare.
    """
    for term in strategy.terms:
        if term.on_features:
            _require_taps(len(plan.features(term.places)), term.loss, strategy)
        else:
            _require_outputs(plan, term.loss)
            _require_geometry(geometry_of(student), geometry_of(teacher), term.loss)
        if term.on == "crossed" and not plan.crossings:
            raise ConfigError(
                "crosskd must find heads that end in convolutions on maps. Received "
                "networks without one. Choose another strategy, for example pkd."
            )


def _require_taps(count: int, loss: str, strategy: Strategy) -> None:
    if not count:
        raise ConfigError(
            f"{loss} must compare features. Received networks without maps of a common stride, in "
            f"strategy '{strategy.name}'. Name pairs of taps, or choose a strategy on outputs."
        )


def _require_outputs(plan: DistillationPlan, loss: str) -> None:
    if not plan.outputs:
        raise ConfigError(
            f"For {loss}, student and teacher must return equally many outputs. Received networks "
            "that do not. Choose a strategy on features, for example pkd."
        )
    for pair in plan.outputs:
        ours, theirs = pair.student.shape, pair.teacher.shape
        if len(ours) != len(theirs) or ours[1] != theirs[1]:
            raise ConfigError(
                f"For {loss}, the teacher's outputs must have the student's classes and anchors. "
                f"Received {ours[1]} channels of the student and {theirs[1]} of the teacher at "
                f"'{pair.student.place}'. Give a teacher of the same classes and anchors, or "
                "choose a strategy on features, for example pkd."
            )


def _require_geometry(ours: Any, theirs: Any, loss: str) -> None:
    if ours is None or theirs is None or ours == theirs:
        return
    keys = [key for key in vars(ours) if getattr(theirs, key, None) != getattr(ours, key)]
    key = keys[0] if type(ours) is type(theirs) and keys else ""
    one, other = (getattr(each, key) if key else type(each).__name__ for each in (ours, theirs))
    raise ConfigError(
        f"For {loss}, student and teacher must have the same {key or 'kind of heads'}. Received "
        f"{one} and {other}. Choose a strategy on features, for example pkd."
    )


def require_labels(student: tuple[str, ...], teacher: tuple[str, ...], strategy: Strategy) -> None:
    """Check that two networks have the same classes where outputs are compared.

    Args:
        student: The student's class names, in the order of their indices.
        teacher: The teacher's; empty where they are unknown.
        strategy: What is compared.

    Raises:
        ConfigError: They differ; the first difference is named.
    """
    if not teacher or student == teacher or all(term.on_features for term in strategy.terms):
        return
    if len(student) != len(teacher):
        difference = f"{len(student)} labels of the student and {len(teacher)} of the teacher"
    else:
        at = next(at for at, name in enumerate(student) if name != teacher[at])
        difference = (
            f"'{student[at]}' of the student and '{teacher[at]}' of the teacher as class {at}"
        )
    raise ConfigError(
        f"A teacher must have the student's classes in the same order. Received {difference}. "
        "Choose another teacher, or a strategy on features: --strategy pkd"
    )
