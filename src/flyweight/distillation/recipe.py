"""Short recipe of a student: how to train it, derived from the training of the dense network."""

from flyweight.config.training import TrainConfig

_EVALUATIONS = 10
_PATIENCE = 5
"""Of ten evaluations: a network that was cut hard finds nothing in the first ones."""
_LEAST_SHARE = 0.1
"""Of the dense network's learning rate, for a student that has lost nothing."""
_REPAIRED = 0.25
"""Of that rate, for a repaired student. A MobileNetV2 on photos of clothes, cut to a fifth of its
multiply-adds: 45 % after the repair; 120 steps end at 48 % so, and at 33 % with the whole rate."""
CLASSIFIER_CLIP_NORM = 2.0
"""Of gradients of a mean over images. Their norm was 20 at the start of the same student: 150 steps
clipped at 2 ended at 60 %, and 315 steps without clipping at 63 %; with the loss against a teacher,
which adds to the norm, 315 steps without clipping ended below the start."""

_LOOSER = 4.0
"""Times the dense detector's limit of gradients, for a detector that was cut. A YOLOv3 on blood
cells (r578) has a norm of 200 at the start, and the dense training clips at 35: after 300 steps
its mAP was 84.1 %, and 72.4 % with a teacher, whose gradients leave less of the limit to the task;
clipped at 140 it was 87.0 and 86.5 %."""


def clip_norm_of(kind: str, dense: TrainConfig) -> float | None:
    """Return the largest norm of gradients in a short training of a network that was cut.

    Args:
        kind: What the network does: "classify", "detect" or "segment".
        dense: How the dense network was trained.
    """
    if dense.clip_norm is None:
        return CLASSIFIER_CLIP_NORM if kind == "classify" else None
    return _LOOSER * dense.clip_norm if kind == "detect" else dense.clip_norm


def short_recipe(
    dense: TrainConfig,
    removed: float,
    steps: int,
    *,
    repaired: bool = False,
    clip_norm: float | None = None,
) -> TrainConfig:
    """Return a training that ends: cosine, warm-up, average, early stop.

    A student that kept its weights needs small steps, one that lost most of them needs steps like
    those of a fresh network, so the learning rate is the share of multiply-adds removed times the
    dense network's, and at least a tenth of it. A repair has put the weights near a good place, and
    such steps would lead away from it: a repaired student gets a quarter.

    Args:
        dense: How the dense network was trained.
        removed: Share of its multiply-adds that the student lacks; below 0 counts as 0.
        steps: Optimizer steps.
        repaired: Whether the student was repaired after the cut.
        clip_norm: Largest norm of gradients, from `clip_norm_of`; None for that of the dense
            network's training.

    Example:
        >>> dense = TrainConfig(steps=9000, learning_rate=0.02, milestones=(6000,))
        >>> recipe = short_recipe(dense, removed=0.5, steps=1000)
        >>> recipe.learning_rate, recipe.schedule, recipe.warmup_steps, recipe.evaluate_every
        (0.01, 'cosine', 50, 100)
    """
    share = min(max(removed, _LEAST_SHARE), 1.0)
    return dense.model_copy(
        update={
            "steps": steps,
            "learning_rate": dense.learning_rate * share * (_REPAIRED if repaired else 1),
            "schedule": "cosine",
            "milestones": (),
            "warmup_steps": steps // 20,
            "warmup_start_factor": 0.0,
            "ema_decay": min(0.9998, max(0.9, 1 - 10 / steps)),
            "evaluate_every": max(steps // _EVALUATIONS, 1),
            "patience": _PATIENCE,
            "clip_norm": dense.clip_norm if clip_norm is None else clip_norm,
        }
    )
