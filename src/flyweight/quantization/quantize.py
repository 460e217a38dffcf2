"""Post-training quantization: from a float network and a few images to an integer one."""

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flyweight.errors import GraphError, PlanError
from flyweight.graph.entry import plain_module
from flyweight.graph.example_inputs import Example
from flyweight.graph.stored import copy_module
from flyweight.origin import QUANTIZE_VERSION, Transform, note_transform
from flyweight.quantization.bias_correction import bias_shifts, shift_biases_
from flyweight.quantization.calibration import Observed, observe, with_grids
from flyweight.quantization.calibration_checks import (
    note_on_repeated,
    repeated_images,
    require_fitting,
)
from flyweight.quantization.calibration_state import CalibrationState
from flyweight.quantization.dead_channels import dead_channels, hold_constant_, noted
from flyweight.quantization.equal_scales import joined, with_equal_scales, with_scales_apart
from flyweight.quantization.equalization import equalize_, equalized
from flyweight.quantization.exact import unclip_, unclipped
from flyweight.quantization.float_twin import scaled_layer
from flyweight.quantization.grids import HIGHEST_BY_BITS
from flyweight.quantization.integer_kernels import FOR_ALL, FOR_OPENVINO
from flyweight.quantization.network import forward_of, quantize_
from flyweight.quantization.openvino_rounding import FUSING, unrounded_sites
from flyweight.quantization.placement import AVERAGING, place
from flyweight.quantization.quantization_plan import QuantizationPlan
from flyweight.quantization.ranges import RANGE_METHODS, RangeMethod
from flyweight.quantization.sites import RecordedSites, record_sites
from flyweight.runtimes.runtime_table import DEFAULT_RUNTIME, runtime_entry

Images = Tensor | Iterable[Tensor | Sequence[Any] | Example]
Say = Callable[[str], None]
_BATCH = 8
_ON_SHAPES = "Give images of the shape that its forward takes."
_ON_PAIRS = (
    "A batch of several tensors is as many positional inputs; give images alone, without labels."
)


@dataclass(frozen=True)
class QuantConfig:
    """How to quantize.

    Attributes:
        skip: Patterns of the layers that stay float: `head.*`, or a part of names; see
            `skipping.skipped`.
        ranges: How the range of a tensor is chosen from its values: `percentile`, `mse`, `minmax`,
            `moving_average` or `kl`; see `ranges.range_of`.
        percentile: Share of the values that `percentile` keeps on each side, in percent.
        fix_dead_channels: Whether channels that are constant but have large folded weights are made
            constant in the copy, see `dead_channels`.
        correct_bias: Whether biases of the copy make up for what rounding adds to most values of a
            channel, see `bias_correction`.
        equalize: Whether channels that depthwise convolutions read are scaled to use the range of
            their tensor, see `equalization`.
        exact: Whether PyTorch and the runtime shall compute the same in every bit: scales are
            powers of two, which costs some accuracy; see `exact`.
        runtime: Name of the runtime that will run the network. For OpenVINO, transposed
            convolutions run on integers, too, and nothing is rounded between a layer and its
            activation; with `exact`, which holds for this runtime, one branch of a sum is not
            rounded instead. See `integer_kernels` and `openvino_rounding`.
        weight_bits: 8, or 7 where the file shall be right on processors without VNNI, too: ONNX
            Runtime and OpenVINO add two products in 16 bits there, which 8 bits may exceed.
        floats: Operations of further layers that stay float, to the reason, such as a time that was
            measured. What joins their results with others stays float, too.

    Raises:
        ConfigError: There is no such runtime.
        PlanError: There is no such method, the percentile is not in (50, 100], or the bits are
            neither 8 nor 7.
    """

    skip: tuple[str, ...] = ()
    ranges: RangeMethod = "percentile"
    percentile: float = 99.99
    weight_bits: int = 8
    fix_dead_channels: bool = True
    correct_bias: bool = True
    equalize: bool = False
    exact: bool = False
    runtime: str = DEFAULT_RUNTIME
    floats: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        runtime_entry(self.runtime)
        if self.ranges not in RANGE_METHODS:
            raise PlanError(
                f"The method for ranges must be one of {', '.join(RANGE_METHODS)}. "
                f"Received: '{self.ranges}'. Choose one of these."
            )
        if self.weight_bits not in HIGHEST_BY_BITS:
            raise PlanError(
                f"The bits of weights must be 8 or 7. Received: {self.weight_bits}. The default "
                "is 8."
            )
        if not 50 < self.percentile <= 100:
            raise PlanError(
                "The percentile of a range must be above 50 and at most 100. "
                f"Received: {self.percentile}. The default is 99.99."
            )


DEFAULT = QuantConfig()


def quantize(
    model: nn.Module,
    images: Images,
    config: QuantConfig = DEFAULT,
    *,
    state_dir: str | os.PathLike[str] | None = None,
    say: Say | None = None,
) -> nn.Module:
    """Return a copy of `model` that computes what the integer runtime will compute.

    The copy is a module of the same class with the same parameters. It can be trained, where
    gradients pass through the rounding, saved with `fw.save`, and exported with `fw.export`: the
    file holds 8-bit weights, which ONNX Runtime and OpenVINO run as integers.

    Batches are taken one by one, three to five times. The memory is one batch with the network's
    own tensors and the results of all its layers, 16 KiB for each quantized tensor, and 32 bytes
    for each output channel of an integer layer, however many images there are. An iterator, which
    can be gone through only once, is kept in memory as a whole.

    Args:
        model: A trained float network, dense or pruned; it is not changed.
        images: What the network sees in use, normalised as in use, without labels; 16 images do.
            A tensor of shape (N, C, H, W), or an iterable of batches: tensors, tuples of
            positional inputs, or `Example`s.
        config: What to quantize, and how ranges are chosen.
        state_dir: A folder of its own for the state of the calibration while it runs: one that was
            killed continues there, and ends with the same bits. It is emptied at the end.
        say: Called with what is odd about the images; by default each is a warning of Python.

    Raises:
        GraphError: The model does not run on the images.
        PlanError: There are no images, their values are all equal or of another scale than in
            training, no operation can run on integers, a value is not finite, the model is
            quantized already, or the sums of a layer are too large to be exact.
        FileError: The state cannot be written.
    """
    model, batches = plain_module(model), _Batches(images)
    small = copy_module(model, private=False)
    state = None if state_dir is None else CalibrationState(Path(state_dir))
    plan = _prepare(small, batches, config, say or _warn, state)
    # Channels are compared below: they must have the same scales.
    scaled = config.correct_bias and (config.equalize or config.exact)
    dense = copy_module(small, private=False) if scaled else model
    quantize_(small, plan)
    if config.correct_bias:
        shift_biases_(small, plan, bias_shifts(dense, small, plan, batches))
    forward = forward_of(small)
    if config.exact and forward is not None:
        forward.require_exact()
    note_transform(small, Transform("quantize", QUANTIZE_VERSION, plan.to_json()))
    if state is not None:
        state.clear()
    return small


def correct_biases(model: nn.Module, quantized: nn.Module, images: Images) -> nn.Module:
    """Return a copy of a quantized network with bias correction, as `correct_bias` does it.

    Roundings of weights that are chosen afterwards (`adaptive_rounding`) change what is missing, so
    they are chosen first, for a network that was quantized without `correct_bias`.

    Args:
        model: The float network; it is not changed.
        quantized: Made of it with neither `equalize` nor `exact`, which change what single layers
            compute; it is not changed.
        images: As `quantize` takes them.

    Raises:
        PlanError: There are no images, the second network is float, or its weights are not those of
            the float one, up to a step.
    """
    batches, corrected = _Batches(images), copy_module(quantized, private=False)
    forward = forward_of(corrected)
    scaled = None if forward is None else scaled_layer(model, forward)
    if forward is None or scaled is not None:
        received = f"'{scaled}' with others" if scaled else f"a float {type(quantized).__name__}"
        raise PlanError(
            "Bias correction must compare a quantized network with the weights of the float one. "
            f"Received {received}. Give what fw.quantize made of it without equalize and exact."
        )
    shifts = bias_shifts(model, corrected, forward.plan, batches)
    shift_biases_(corrected, forward.plan, shifts)
    return corrected


def plan_quantization(
    model: nn.Module, images: Images, config: QuantConfig = DEFAULT
) -> QuantizationPlan:
    """Return the plan that `quantize` carries out; see there."""
    small = copy_module(plain_module(model), private=False)
    return _prepare(small, _Batches(images), config, _warn, None)


def _warn(text: str) -> None:
    warnings.warn(text[:1].upper() + text[1:], stacklevel=4)


class _Batches:
    """Batches that can be gone through several times, without empty ones; there is one at least."""

    def __init__(self, images: Images) -> None:
        self._images = list(images) if isinstance(images, Iterator) else images
        first = next(iter(self), None)
        if first is None:
            raise PlanError(
                "Quantization must see images. Received none. Give at least one, better 16, as "
                "they are in use."
            )
        self.first = first

    def __iter__(self) -> Iterator[Example]:
        """Yield the batches."""
        for batch in batches_of(self._images):
            if any(tensor.numel() for _, tensor in batch.tensors()):
                yield batch


def _prepare(
    small: nn.Module,
    batches: _Batches,
    config: QuantConfig,
    say: Say,
    state: CalibrationState | None,
) -> QuantizationPlan:
    """Return the plan for a float network, after its channels were prepared in place."""
    recorded = _recorded(small, _first_alone(batches.first))
    kernels = FOR_OPENVINO if config.runtime == FUSING else FOR_ALL
    if config.exact:  # Rounding of an activation is not the same in every bit.
        kernels = replace(kernels, activations=frozenset())
    placed = place(recorded, config.skip, config.floats, kernels=kernels)
    placed = replace(placed, weight_bits=config.weight_bits)
    if not placed.layers:
        reasons = "; ".join(f"{name}: {why}" for name, why in list(placed.floats.items())[:3])
        raise PlanError(
            "A network must have an operation that can run on integers. Received a "
            f"{type(small).__name__} without one{f' ({reasons})' if reasons else ''}. It is as "
            "fast in float."
        )
    joins, averages = joined(recorded, placed), joined(recorded, placed, AVERAGING)
    calibrated = partial(
        with_grids, method=config.ranges, percentile=config.percentile, exact=config.exact
    )

    def ranges(placed: QuantizationPlan, observed: Observed) -> QuantizationPlan:
        plan = calibrated(placed, observed)
        if not config.exact:  # Powers of two: all runtimes see the same ties.
            plan = with_scales_apart(plan, averages)
        return with_equal_scales(plan, joins)

    if config.exact:
        placed = unclip_(small, placed, unclipped(recorded, placed))
        summed = unrounded_sites(recorded, placed) if config.runtime == FUSING else ()
        placed = replace(placed, runtime=config.runtime, unrounded=summed)
    observed = observe(small, placed, batches, state=state)
    tensors = {**dict(small.named_parameters()), **dict(small.named_buffers())}
    for warning in require_fitting(placed, observed, tensors):
        say(warning)
    if count := repeated_images(batches):
        say(note_on_repeated(count))
    if config.equalize and (found := equalized(recorded, placed, observed.channels)):
        equalize_(small, found)
        observed = observe(small, placed, batches, state=state)
    plan = ranges(placed, observed)
    constants = dead_channels(plan, observed.channels) if config.fix_dead_channels else {}
    if not constants:
        return plan
    hold_constant_(small, plan, constants)
    return noted(ranges(placed, observe(small, placed, batches, state=state)), constants)


def _recorded(model: nn.Module, example: Example) -> RecordedSites:
    try:
        return record_sites(model, example)
    except Exception as error:  # Whatever the code of the model raises.
        remedy = _ON_PAIRS if len(example.args) > 1 else _ON_SHAPES
        text = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise GraphError(
            f"The model must run on the images. Received from {type(model).__name__}: {text}. "
            f"{remedy}"
        ) from error


def batches_of(images: Images, size: int = _BATCH) -> Iterator[Example]:
    """Yield the inputs of every call of a network on images, as `quantize` takes them.

    Args:
        images: Batches, or a tensor of all images.
        size: Images of a batch of a tensor; other batches are as they are given.
    """
    if isinstance(images, Tensor):
        yield from (Example((part,)) for part in torch.split(images, size) if len(part))
        return
    for batch in images:
        if isinstance(batch, Example):
            yield batch
        elif isinstance(batch, Tensor):
            yield Example((batch,))
        else:
            yield Example(tuple(batch))


def _first_alone(batch: Example) -> Example:
    """Return the first image of a batch: the sites are the same, and one costs less."""
    sizes = {len(tensor) for _, tensor in batch.tensors() if tensor.ndim}
    if len(sizes) != 1 or sizes == {0}:
        return batch
    return batch.mapped(lambda tensor: tensor[:1] if tensor.ndim else tensor)
