"""Training of quantized networks: before it steps become parameters, after it they are fixed.

Normalisations are folded with their running statistics during training as well, so that what is
trained is what runs; the statistics stay as they are. The modules of the network keep their
settings: momentum, epsilon, dropout.
"""

from dataclasses import replace

import torch
from torch import nn

from flyweight.errors import PlanError
from flyweight.graph.stored import copy_module
from flyweight.origin import QUANTIZE_VERSION, Transform, note_origin, origin_of
from flyweight.quantization.network import (
    CHILD,
    QuantizedForward,
    equip,
    forward_of,
    key_of,
    unfold,
)
from flyweight.quantization.quantization_plan import LearnedSteps, QuantizationPlan

LSQ = LearnedSteps()


def trainable(model: nn.Module, learned: LearnedSteps = LSQ) -> nn.Module:
    """Return a copy of a quantized network whose steps are trained with its weights.

    All that the training adds is in parameters and buffers of the copy: a checkpoint of these
    resumes it, and `fw.save` and `fw.load` keep it. `settled` ends it; an export of the copy
    computes what the copy does in evaluation mode.

    Args:
        model: From `fw.quantize`; or one that was trained before.
        learned: What is trained.

    Raises:
        PlanError: The network is not quantized, or exact while steps are to be trained.
    """
    copied, forward = _copied(model)
    if forward.plan.exact and learned.method != "fixed":
        raise PlanError(
            "Steps of an exact network must stay powers of two. Received the method "
            f"'{learned.method}'. Train with 'fixed', or quantize without exact."
        )
    present = settled(copied) if forward.plan.learned is not None else copied
    plan = _present_plan(present)
    own = plan.own_scales or learned.method == "lsq" or learned.hold_after > 0
    return _equipped(present, replace(plan, learned=learned, own_scales=own))


@torch.no_grad()
def settled(model: nn.Module) -> nn.Module:
    """Return a copy of a network from `trainable` with fixed steps.

    It computes exactly what the trained network does in evaluation mode. Weights whose integers
    are held become those integers times their scales.

    Args:
        model: From `trainable`; a network with fixed steps is copied.

    Raises:
        PlanError: The network is not quantized.
    """
    copied, forward = _copied(model)
    if forward.plan.learned is None:
        return copied
    copied_mode = copied.training
    copied.eval()
    forward.prepare()
    _write_held(forward)
    return _equipped(copied, replace(_present_plan(copied), learned=None)).train(copied_mode)


def _copied(model: nn.Module) -> tuple[nn.Module, QuantizedForward]:
    copied = copy_module(model, private=False)
    forward = forward_of(copied)
    if forward is None:
        raise PlanError(
            "A network must be quantized before its steps are trained. Received a float "
            f"{type(model).__name__}. Give what fw.quantize returned."
        )
    return copied, forward


def _present_plan(model: nn.Module) -> QuantizationPlan:
    """Return the plan with the grids that the quantizers have at present."""
    forward = forward_of(model)
    children = getattr(model, CHILD)
    plan: QuantizationPlan = forward.plan  # type: ignore[union-attr]  # Checked by the caller.
    return plan.with_grids({name: children[key_of(name)].grid() for name in plan.grids})


def _equipped(model: nn.Module, plan: QuantizationPlan) -> nn.Module:
    """Give a module the quantizers of a plan, and note the plan in place of its last one."""
    equip(model, plan)
    origin = origin_of(model)
    if origin is not None:
        *earlier, last = origin.transforms
        if last.kind != "quantize":
            raise PlanError(
                "The last change of a network must be its quantization when steps are trained. "
                f"Received '{last.kind}' after it. Quantize again."
            )
        newest = Transform("quantize", QUANTIZE_VERSION, plan.to_json())
        note_origin(model, replace(origin, transforms=(*earlier, newest)))
    return model


def _write_held(forward: QuantizedForward) -> None:
    """Change the weights so that rounding them gives the integers that they hold."""
    gains = forward.held_gains()
    for layer in forward.plan.layers.values():
        if layer.operation not in gains:
            continue
        made, _ = forward.parameters_of(layer)
        unfold(forward.weight(layer), made, forward.factor_of(layer))
        gain = gains[layer.operation]
        if gain is not None and layer.norm is not None and layer.norm.scale is not None:
            forward.tensor(layer.norm.scale).copy_(gain)
