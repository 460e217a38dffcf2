"""The frozen view of a traced network that everything else works on."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from flyweight.graph.cost import AxisSize, Convention, Cost, CostModel
from flyweight.graph.example_inputs import InputSpec
from flyweight.graph.groups import ChannelGroup
from flyweight.graph.operations import GraphTensor, Operation
from flyweight.graph.program import RecordedRun
from flyweight.graph.rescaling import Rescaled


@dataclass(frozen=True, eq=False)
class ModelGraph:
    """What a model computes, seen as channels.

    Attributes:
        groups: Coupled channel groups by name, in order of execution.
        costs: Prices any plan for this graph.
        tensors: The traced model's own parameters and buffers, which criteria score; not copies.
        inputs: Shape and type of every positional input, as `example_inputs.describe` writes them.
        fingerprint: Digest of names, shapes and groups; equal graphs accept the same plans.
        numbers: Attributes that modules count channels with, as functions of what stays.
        rescaled: Scales beside weights that the code divides by their norm: a cut corrects them.
        keywords: Shape and type of every keyword input, by name.
        operations: What the model executes in evaluation, in order of execution. Quantizers,
            distillation taps and precisions are placed on these.
        outputs: The tensors that the model returns.
        runs: Every run that was recorded; the check after a cut repeats them.
        notes: Remarks for the user: what was not recorded, and parameters that no run reads.
    """

    groups: Mapping[str, ChannelGroup]
    costs: CostModel = field(repr=False)
    tensors: Mapping[str, Tensor] = field(repr=False)
    inputs: tuple[InputSpec, ...]
    fingerprint: str
    numbers: Mapping[str, AxisSize] = field(default_factory=dict, repr=False)
    keywords: Mapping[str, InputSpec] = field(default_factory=dict)
    rescaled: tuple[Rescaled, ...] = field(default=(), repr=False)
    operations: tuple[Operation, ...] = field(default=(), repr=False)
    outputs: tuple[GraphTensor, ...] = field(default=(), repr=False)
    runs: tuple[RecordedRun, ...] = field(default=(), repr=False)
    notes: tuple[str, ...] = ()

    def numbers_under(self, kept: Mapping[str, int]) -> dict[str, int]:
        """Return the attributes that change when `kept` channels of some groups stay."""
        full = {name: group.size for name, group in self.groups.items()}
        values = {path: size.under({**full, **kept}) for path, size in self.numbers.items()}
        return {p: v for p, v in values.items() if v != self.numbers[p].under(full)}

    def cost(self, convention: Convention = "real") -> Cost:
        """Return the cost of the network as traced."""
        return self.costs.price(
            {name: group.size for name, group in self.groups.items()}, convention
        )

    def prunable(self) -> dict[str, ChannelGroup]:
        """Return the groups whose channels can be removed exactly."""
        return {name: group for name, group in self.groups.items() if group.prunable}
