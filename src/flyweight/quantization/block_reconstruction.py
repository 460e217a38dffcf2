"""Block reconstruction: the roundings of a block's weights are chosen together.

Li et al. 2021 (BRECQ), https://arxiv.org/abs/2102.05426, section 3.2. Block after block, on what
the quantized network computes up to there, the roundings of all its layers are trained until its
results are those of the float network. Errors have equal weight, where the paper weights them by
gradients of a loss, which needs labels. Images need none here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from flyweight.errors import PlanError
from flyweight.graph.containers import tensors_in
from flyweight.graph.dispatch import evaluating, plain_attention
from flyweight.graph.example_inputs import Example
from flyweight.graph.operations import names_of
from flyweight.graph.program import Call, Run, Value
from flyweight.graph.recorder import module_paths
from flyweight.graph.recording import private_copy
from flyweight.graph.stored import copy_module
from flyweight.progress import Progress, progress_of
from flyweight.quantization.adaptive_rounding import AdaptiveRounding, require_roundable
from flyweight.quantization.fixed_norms import as_batch_norms_
from flyweight.quantization.grids import HIGHEST, LOWEST
from flyweight.quantization.network import QuantizedForward, unfold
from flyweight.quantization.quantize import Images, batches_of
from flyweight.quantization.recorded_blocks import Block, blocks_of, placed
from flyweight.quantization.sites import record_sites
from flyweight.quantization.weight_choice import WeightChoice, undecided
from flyweight.replay.rerun import ReplayError, record

Values = dict[int, Tensor]
"""Tensors of a run by their numbers."""


def reconstruct_blocks(
    model: nn.Module,
    quantized: nn.Module,
    images: Images,
    settings: AdaptiveRounding | None = None,
    *,
    progress: Progress | bool = False,
) -> nn.Module:
    """Return a copy of a quantized network whose weights are rounded to keep what blocks compute.

    A step takes one batch of the images. What is kept in memory grows with their number: the
    tensors at the end of one block, and the program of a run for each batch.

    Args:
        model: The float network; it is not changed.
        quantized: From `fw.quantize`, with fixed steps, neither `equalize` nor `exact`; it is not
            changed.
        images: As `fw.quantize` takes them; 16 do, more are better.
        settings: How; of the blocks, those with one of `layers` are trained.
        progress: Receives progress.

    Raises:
        PlanError: There are no images, the network is float or in training, it has no such layer,
            its weights are not those of the float one, or it cannot be executed in parts.
    """
    settings = settings or AdaptiveRounding()
    copied = copy_module(quantized, private=False)
    mode, dense = copied.training, private_copy(model, values=True)
    as_batch_norms_(dense)
    batches = list(batches_of(images, settings.batch))
    forward, chosen = require_roundable(dense, copied, batches, settings.layers)
    copied.eval()
    with plain_attention(dense, copied):
        both = _Networks(dense, forward, batches)
        wanted = {layer.operation for layer in chosen}
        task = progress_of(progress).start("block", len(both.blocks))
        for number, block in enumerate(both.blocks):
            if any(layer.operation in wanted for layer in block.layers):
                _reconstruct(both, number, settings)
            both.advance(number)
            task.update(number + 1, {})
        task.finish()
    return copied.train(mode)


class _Networks:
    """Both networks on all batches, up to the same block.

    Args:
        dense: The float network, in evaluation mode.
        forward: Of the quantized one.
        batches: What they run on.

    Attributes:
        blocks: Of the first batch; those of others have the same layers and numbers of tensors.
        dense: What the float network has made so far, by batch.
        integers: Likewise the quantized one.
    """

    def __init__(
        self, dense: nn.Module, forward: QuantizedForward, batches: Sequence[Example]
    ) -> None:
        self.forward = forward
        self.found = placed(forward.plan, record_sites(dense, batches[0]))
        self.parts: list[tuple[Block, ...]] = []
        self.names: dict[int, str] = {}
        self.dense: list[Values] = []
        self.integers: list[Values] = []
        forward.prepare()
        for batch in batches:
            run = _recorded(dense, batch)
            self.names |= {id(call): name for name, call in names_of(run.calls)}
            self.parts.append(blocks_of(run, self.found))
            self.dense.append(_given(run))
            self.integers.append(self._quantized(run, batch))

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks, as the first batch has them."""
        return self.parts[0]

    def quantizer_of(self, call: Call) -> str | None:
        """Return the quantizer of what an operation makes; None for float results."""
        return self.found.quantizers.get(self.names.get(id(call), ""))

    @torch.no_grad()
    def advance(self, number: int) -> None:
        """Execute a block in both networks, and forget what no later one needs."""
        self.forward.prepare()
        weights = {
            layer.operation: self.forward.parameters_of(layer)
            for layer in self.blocks[number].layers
        }
        for place, blocks in enumerate(self.parts):
            block = blocks[number]
            now = self.run_integers(block, self.integers[place], weights)[0]
            self.integers[place] = {key: now[key] for key in block.after if key in now}
            now = self.dense[place] | self.run_dense(block, self.dense[place])
            self.dense[place] = {key: now[key] for key in block.after if key in now}

    def run_dense(self, block: Block, values: Values) -> Values:
        """Return all that a block makes of `values` in the float network."""
        now = dict(values)
        for call in block.calls:
            args, kwargs = _filled(call, now)
            made = tensors_in(call.func(*args, **kwargs))
            now |= dict(zip(call.makes, made, strict=True))
        return now

    def run_integers(
        self, block: Block, values: Values, weights: Mapping[str, tuple[Tensor, Tensor | None]]
    ) -> tuple[Values, Values]:
        """Return all that a block makes in the quantized network, and its ends before rounding.

        Args:
            block: The block.
            values: What was made before it.
            weights: Weight and bias of every layer, by operation.
        """
        now, ends = dict(values), {}
        for call in block.calls:
            made, quantizer = self._made(call, now, weights), self.quantizer_of(call)
            for key, tensor in zip(call.makes, tensors_in(made), strict=True):
                if key in block.ends:
                    ends[key] = tensor
                now[key] = tensor if quantizer is None else self.forward.result(quantizer, tensor)
        return now, ends

    def _made(
        self, call: Call, now: Values, weights: Mapping[str, tuple[Tensor, Tensor | None]]
    ) -> Any:
        """Return what an operation makes before it is rounded."""
        name = self.names.get(id(call), "")
        args, kwargs = _filled(call, now)
        if name in self.found.layers:
            weight, bias = weights[name]
            named = {"weight": self.found.layers[name].channels_first(weight), "bias": bias}
            given = now[call.arguments["input"].number]
            return call.func(**{**call.arguments, "input": given, **named})
        if name in self.found.norms:
            return args[0]
        return torch.relu(args[0]) if name in self.found.relus else call.func(*args, **kwargs)

    @torch.no_grad()
    def _quantized(self, run: Run, batch: Example) -> Values:
        """Return what the quantized network is given: its own tensors, and rounded inputs."""
        found, inputs = _given(run), self.forward.plan.inputs
        for name, number in run.stored.items():
            found[number] = self.forward.tensor(name)
        places = {id(tensor): place for place, tensor in batch.tensors()}
        for number, tensor in run.values.items():
            quantizer = inputs.get(places.get(id(tensor), ""))
            if quantizer is not None:
                found[number] = self.forward.result(quantizer, tensor)
        return found


def _reconstruct(both: _Networks, number: int, settings: AdaptiveRounding) -> None:
    """Choose the roundings of a block and write them into its weights."""
    forward, plan = both.forward, both.forward.plan
    weights: dict[str, tuple[Tensor, Tensor | None]] = {}
    choices: dict[str, WeightChoice] = {}
    forward.prepare()
    with torch.no_grad():
        for layer in both.blocks[number].layers:
            weights[layer.operation] = forward.parameters_of(layer)
            if layer.weight not in plan.shared_weights:
                folded, bias = forward.folded(layer)
                scales = forward.scales_of(layer, folded, bias)
                choices[layer.operation] = WeightChoice(folded, scales, plan.weight_bits)
        wanted = [
            {key: made[key] for key in blocks[number].ends}
            for blocks, values in zip(both.parts, both.dense, strict=True)
            for made in (both.run_dense(blocks[number], values),)
        ]
    if choices:
        _train(_Problem(both, number, weights, choices, wanted), settings)
    with torch.no_grad():
        for layer in both.blocks[number].layers:
            if layer.operation in choices:
                made = choices[layer.operation].hard()
                unfold(forward.weight(layer), made, forward.factor_of(layer))


@dataclass(frozen=True, eq=False)
class _Problem:
    """What a block has to compute.

    Attributes:
        both: The networks.
        number: Of the block.
        weights: Weight and bias of every layer, rounded to the nearest.
        choices: The roundings to train, by operation.
        wanted: By batch, the ends of the block in the float network.
    """

    both: _Networks
    number: int
    weights: Mapping[str, tuple[Tensor, Tensor | None]]
    choices: Mapping[str, WeightChoice]
    wanted: Sequence[Values]

    def errors(self, place: int, *, soft: bool) -> dict[int, Tensor]:
        """Return the mean squared error of every end on a batch."""
        weights = {
            name: (one.soft() if soft else one.hard(), self.weights[name][1])
            for name, one in self.choices.items()
        }
        block, values = self.both.parts[place][self.number], self.both.integers[place]
        _, ends = self.both.run_integers(block, values, {**self.weights, **weights})
        quantizers = {key: self.both.quantizer_of(c) for c in block.calls for key in c.makes}
        return {
            key: self._apart(quantizers[key], made, self.wanted[place][key])
            for key, made in ends.items()
            if made.is_floating_point()
        }

    def _apart(self, quantizer: str | None, made: Tensor, wanted: Tensor) -> Tensor:
        """Return the squared error of results as far as later blocks see them."""
        if quantizer is not None:
            grid = self.both.forward.plan.grids[quantizer]
            low, high = ((end - grid.zero_point) * grid.scale for end in (LOWEST, HIGHEST))
            made, wanted = made.clamp(low, high), wanted.clamp(low, high)
        return (made - wanted).square().mean()


def _train(problem: _Problem, settings: AdaptiveRounding) -> None:
    generator = torch.Generator().manual_seed(settings.seed)
    choices, count = list(problem.choices.values()), len(problem.wanted)
    parameters = [parameter for one in choices for parameter in one.parameters()]
    optimizer = torch.optim.Adam(parameters, settings.rate)
    with torch.no_grad():
        found = [problem.errors(place, soft=False) for place in range(count)]
        units = {key: sum(float(one[key]) for one in found) / count or 1.0 for key in found[0]}
    for step in range(settings.steps):
        place = int(torch.randint(count, (), generator=generator))
        errors = problem.errors(place, soft=True)
        loss = sum((error / units[key] for key, error in errors.items()), torch.zeros(()))
        loss = loss + settings.push * undecided(choices, step / settings.steps)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def _recorded(dense: nn.Module, batch: Example) -> Run:
    try:
        with evaluating(dense), module_paths(dense) as path:
            return record(dense, lambda: dense(*batch.args, **batch.kwargs), (), path)
    except ReplayError as error:
        raise PlanError(
            "A network must be executable in parts to reconstruct its blocks. Received a "
            f"{type(dense).__name__} that {error}. Round its layers one by one instead."
        ) from error


def _given(run: Run) -> Values:
    """Return the tensors that a run did not make: inputs, constants, and the network's own."""
    made = {number for call in run.calls for number in call.makes}
    # Gradients refuse tensors of inference mode.
    return {
        number: tensor.clone() if tensor.is_inference() else tensor.detach()
        for number, tensor in run.values.items()
        if number not in made
    }


def _filled(call: Call, now: Values) -> tuple[Any, Any]:
    """Return the arguments of an operation with tensors in place of their numbers."""
    found: tuple[Any, Any] = tree_map_only(
        Value, lambda value: now[value.number], (call.args, dict(call.kwargs))
    )
    return found
