"""Plans of quantization: which tensors become integers, with which grids, and what stays float."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self, get_args

from torch import Tensor

from flyweight.errors import PlanError
from flyweight.quantization.grids import HIGHEST_BY_BITS, Grid
from flyweight.untrusted.failures import refusing
from flyweight.untrusted.json_values import parse_json

FORMAT = 1
Method = Literal["lsq", "pact", "fixed"]
METHODS: tuple[str, ...] = get_args(Method)


@dataclass(frozen=True)
class LearnedSteps:
    """How a quantized network is trained.

    Attributes:
        method: `lsq` trains the steps of activations (where their range does not begin at zero, the
            zero point, too: LSQ+) and those of every output channel of a weight; `pact` trains the
            ends of the ranges of activations; `fixed` trains weights alone.
        hold_after: After this number of training steps every weight keeps one of the two integers
            around it, the one nearer to its average (decay 0.99); what is trained on are steps,
            biases and shifts. 0 is never.

    Raises:
        PlanError: There is no such method, or the number is negative.
    """

    method: Method = "lsq"
    hold_after: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise PlanError(
                f"Steps must be trained by one of {', '.join(METHODS)}. "
                f"Received: '{self.method}'. Choose one of these."
            )
        if isinstance(self.hold_after, bool) or self.hold_after < 0:
            raise PlanError(
                "The training step from which integers are held must be 0 or more. "
                f"Received: {self.hold_after}. 0 never holds them."
            )


@dataclass(frozen=True)
class FoldedNorm:
    """A batch normalisation that becomes a part of the layer before it.

    Attributes:
        mean: Name of its running mean.
        variance: Name of its running variance.
        scale: Name of what it multiplies with; None where it has none.
        shift: Name of what it adds; None where it has none.
        epsilon: What it adds to the variance.
    """

    mean: str
    variance: str
    scale: str | None
    shift: str | None
    epsilon: float


@dataclass(frozen=True)
class IntegerLayer:
    """An operation with a weight that runs on integers.

    Attributes:
        operation: Its name, see `graph.Operation.name`.
        weight: Name of the weight.
        bias: Name of the bias; None where it has none.
        source: The quantizer of what it reads.
        result: The quantizer of what it makes, after an activation that is computed with it.
        norm: A batch normalisation that is folded into the weight; None without.
        transposed: Whether it is a transposed convolution, whose weight has the output channels on
            its second axis.
    """

    operation: str
    weight: str
    bias: str | None
    source: str
    result: str
    norm: FoldedNorm | None = None
    transposed: bool = False

    def channels_first(self, weight: Tensor) -> Tensor:
        """Return a view of the weight with its output channels on the first axis, or back."""
        return weight.transpose(0, 1) if self.transposed else weight

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of the tensors that it computes with, those of the normalisation included."""
        norm = self.norm
        named = [self.weight, self.bias]
        named += [] if norm is None else [norm.mean, norm.variance, norm.scale, norm.shift]
        return tuple(name for name in named if name is not None)


@dataclass(frozen=True)
class QuantizationPlan:
    """What is quantized, and how.

    Attributes:
        layers: Site of every integer layer to what it is, see `sites.Site.name`.
        norms: Sites of the folded normalisations, which hand on what they take.
        outputs: Site to the quantizer of what it returns.
        inputs: Place of an input of the network to its quantizer, for example `args[0]`.
        limits: Quantizer to the largest value that its tensor can have, for example 6.
        grids: Quantizer to its grid; empty before calibration.
        floats: Operation with a weight, or matmul, that stays float, to the reason.
        weight_bits: Bits of the weights, 8 or 7.
        learned: How the steps are trained at present; None where they are fixed.
        own_scales: Whether scales of weights are stored; otherwise they follow from the largest
            value of each output channel.
        constant: Operation to its output channels that were made constant, see `dead_channels`.
        exact: Whether every scale is a power of two, see `exact`.
        relus: Sites of ReLU6 that run as ReLU, because the last level of the grid is their limit.
        runtime: Name of the runtime that computes the same in every bit; empty if not `exact`.
        unrounded: Sites with a grid whose results are not rounded, because that runtime does not,
            see `openvino_rounding`.
    """

    layers: Mapping[str, IntegerLayer]
    norms: tuple[str, ...]
    outputs: Mapping[str, str]
    inputs: Mapping[str, str]
    limits: Mapping[str, float]
    grids: Mapping[str, Grid] = field(default_factory=dict)
    floats: Mapping[str, str] = field(default_factory=dict)
    weight_bits: int = 8
    learned: LearnedSteps | None = None
    own_scales: bool = False
    constant: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    exact: bool = False
    relus: tuple[str, ...] = ()
    runtime: str = ""
    unrounded: tuple[str, ...] = ()

    @property
    def shared_weights(self) -> frozenset[str]:
        """Names of weights that several layers use."""
        used = Counter(layer.weight for layer in self.layers.values())
        return frozenset(name for name, times in used.items() if times > 1)

    @property
    def own_layers(self) -> tuple[IntegerLayer, ...]:
        """The layers that share no tensor with another and add something to their result."""
        used = Counter(name for layer in self.layers.values() for name in set(layer.tensors))
        return tuple(
            layer
            for layer in self.layers.values()
            if (layer.bias or layer.norm) and all(used[name] == 1 for name in layer.tensors)
        )

    @property
    def quantizers(self) -> tuple[str, ...]:
        """Names of the quantizers, in the order of their first use."""
        return tuple(dict.fromkeys((*self.inputs.values(), *self.outputs.values())))

    def with_grids(self, grids: Mapping[str, Grid]) -> Self:
        """Return the plan with the grids of a calibration."""
        return replace(self, grids=dict(grids))

    def to_json(self) -> str:
        """Return the plan as text; equal plans give equal text."""
        data = {
            "format": FORMAT,
            "layers": {site: asdict(layer) for site, layer in self.layers.items()},
            "norms": list(self.norms),
            "outputs": dict(self.outputs),
            "inputs": dict(self.inputs),
            "limits": dict(self.limits),
            "grids": {name: [grid.scale, grid.zero_point] for name, grid in self.grids.items()},
            "floats": dict(self.floats),
            "weight_bits": self.weight_bits,
            "learned": None if self.learned is None else asdict(self.learned),
            "own_scales": self.own_scales,
            "constant": {name: list(channels) for name, channels in self.constant.items()},
            "exact": self.exact,
            "relus": list(self.relus),
            "runtime": self.runtime,
            "unrounded": list(self.unrounded),
        }
        return json.dumps(data, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "QuantizationPlan":
        """Read what `to_json` wrote.

        Raises:
            PlanError: The text is no such plan.
        """
        must = "A plan of quantization must be the JSON that QuantizationPlan.to_json writes."
        with refusing(PlanError, must, "text", "Quantize again."):
            data = parse_json(text)
            if data["format"] != FORMAT:
                raise ValueError(f"its format is {data['format']!r}, not {FORMAT}")
            return cls(
                layers={str(site): _layer(entry) for site, entry in data["layers"].items()},
                norms=tuple(map(str, data["norms"])),
                outputs=_texts(data["outputs"]),
                inputs=_texts(data["inputs"]),
                limits={str(name): float(most) for name, most in data["limits"].items()},
                grids={str(name): _grid(*entry) for name, entry in data["grids"].items()},
                floats=_texts(data["floats"]),
                weight_bits=_bits(data["weight_bits"]),
                learned=None if data["learned"] is None else _learned(**data["learned"]),
                own_scales=_flag(data["own_scales"]),
                constant={
                    str(name): tuple(map(int, channels))
                    for name, channels in data["constant"].items()
                },
                exact=_flag(data["exact"]),
                relus=tuple(map(str, data["relus"])),
                # Plans of earlier versions have neither.
                runtime=str(data.get("runtime", "")),
                unrounded=tuple(map(str, data.get("unrounded", ()))),
            )


def _bits(value: object) -> int:
    if isinstance(value, bool) or value not in HIGHEST_BY_BITS:
        raise ValueError(f"weights have {value!r} bits")
    return int(str(value))


def _learned(method: str, hold_after: int) -> LearnedSteps:
    return LearnedSteps(method, int(hold_after))  # type: ignore[arg-type]  # Checked there.


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is neither true nor false")
    return value


def _texts(data: Mapping[str, str]) -> dict[str, str]:
    return {str(key): str(value) for key, value in data.items()}


def _layer(entry: Mapping[str, Any]) -> IntegerLayer:
    norm = None if entry["norm"] is None else _norm(**entry["norm"])
    bias = None if entry["bias"] is None else str(entry["bias"])
    keys = ("operation", "weight", "source", "result")
    operation, weight, source, result = (str(entry[key]) for key in keys)
    # Plans of earlier versions have none.
    transposed = _flag(entry.get("transposed", False))
    return IntegerLayer(operation, weight, bias, source, result, norm, transposed)


def _norm(
    mean: str, variance: str, scale: str | None, shift: str | None, epsilon: float
) -> FoldedNorm:
    scale = None if scale is None else str(scale)
    shift = None if shift is None else str(shift)
    return FoldedNorm(str(mean), str(variance), scale, shift, float(epsilon))


def _grid(scale: float, zero_point: int) -> Grid:
    if not 0 < scale < float("inf") or isinstance(zero_point, bool):
        raise ValueError(f"a grid has the scale {scale!r}")
    return Grid(float(scale), int(zero_point))
