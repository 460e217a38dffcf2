"""Placement: which tensors of a network become integers, by the rules that the runtimes have.

ONNX Runtime runs a layer on integers only where what it reads and what it makes is quantized, with
one unsigned grid for each tensor; OpenVINO accepts that as well. The reasons for every rule are in
docs/quantization.md.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from flyweight.graph.program import Call
from flyweight.quantization.integer_kernels import FOR_ALL, TRANSPOSED, IntegerKernels
from flyweight.quantization.layer_flow import makers_of
from flyweight.quantization.quantization_plan import FoldedNorm, IntegerLayer, QuantizationPlan
from flyweight.quantization.rewriting import is_rewritable
from flyweight.quantization.sites import RecordedSites, Site
from flyweight.quantization.skipping import skipped

_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
_LAYERS = (*_CONVOLUTIONS, *TRANSPOSED, "linear")
_MULTIPLYING = ("matmul", "bmm", "mm")
CONCATENATING = ("cat", "concat", "concatenate", "stack")
_SCALING = ("add", "sub", "mul", "div")
"""Where all but one of the tensors are stored, a change of each value by itself."""
_JOINING = ("add", "mul", *CONCATENATING, *_MULTIPLYING)
"""Operations of several tensors; all of these and the result are quantized."""
_PASSING_NAMES = """
    max_pool1d max_pool2d max_pool3d view reshape flatten unflatten permute transpose movedim
    unsqueeze squeeze
    upsample_nearest1d upsample_nearest2d upsample_nearest3d slice select chunk split
    split_with_sizes narrow pixel_shuffle pixel_unshuffle channel_shuffle contiguous clone dropout
    alias detach expand t numpy_T unbind roll flip rot90 repeat expand_as broadcast_to mT mH
    swapaxes swapdims moveaxis tensor_split adaptive_max_pool1d adaptive_max_pool2d
    adaptive_max_pool3d unfold im2col
"""
_PASSING = frozenset(_PASSING_NAMES.split())
"""Operations that only move values or choose among them: the grid of the result is the same."""
_AVERAGING_NAMES = """
    avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
    mean upsample_bilinear2d upsample_linear1d upsample_trilinear3d
"""
AVERAGING = frozenset(_AVERAGING_NAMES.split())
"""Operations whose results are averages of what they take."""
_CURVED_NAMES = """
    relu relu6 hardtanh leaky_relu elu prelu sigmoid hardsigmoid hardswish silu gelu mish tanh
    batch_norm
"""
_CURVED = AVERAGING.union(_CURVED_NAMES.split())
"""Operations of one tensor whose result needs a grid of its own."""
_UNSUPPORTED = {
    "deform_conv2d": "deformable convolution, for which no runtime has an integer kernel",
    "lstm": "recurrent layer, whose weights PyTorch applies in one operation",
    "gru": "recurrent layer, whose weights PyTorch applies in one operation",
    "rnn_tanh": "recurrent layer, whose weights PyTorch applies in one operation",
    "rnn_relu": "recurrent layer, whose weights PyTorch applies in one operation",
    "scaled_dot_product_attention": "attention, which PyTorch executes as one operation",
    "einsum": "einsum, for which no runtime has an integer kernel",
    "bilinear": "bilinear layer, for which no runtime has an integer kernel",
    "addmm": "product and sum in one operation, which no rule places",
    "baddbmm": "product and sum in one operation, which no rule places",
}
_REWRITABLE = "; --rewrite makes a 1x1 convolution and a shuffle of it, which have"
_CHOOSING_NAMES = """
    index _unsafe_index index_select gather take take_along_dim masked_select nonzero topk sort
    argsort kthvalue where masked_fill scatter one_hot
"""
_CHOOSING = frozenset(_CHOOSING_NAMES.split())
"""Operations that choose rows by other values: what follows is arithmetic of boxes, not layers."""
_POSITIVE = ("sigmoid", "hardsigmoid", "softmax")
_RELU6 = 6.0
_NO_REASONS: Mapping[str, str] = MappingProxyType({})
_NOTHING: frozenset[str] = frozenset()


def place(
    recorded: RecordedSites,
    skip: Sequence[str] = (),
    floats: Mapping[str, str] = _NO_REASONS,
    *,
    kernels: IntegerKernels = FOR_ALL,
) -> QuantizationPlan:
    """Return what to quantize in a recorded network, before calibration.

    Args:
        recorded: From `sites.record_sites`.
        skip: Patterns of the layers that stay float, see `skipping.skipped`.
        floats: Operations of layers that stay float, to the reason. What joins their results with
            others stays float with them, and nothing is rounded that only float layers read.
        kernels: What the runtime computes on integers besides what all of them do.

    Raises:
        PlanError: A pattern matches no layer.
    """
    return _Placement(recorded, skip, floats, kernels).plan()


def layer_names(recorded: RecordedSites) -> list[str]:
    """Return the names of all operations with a weight, and of products of matrices."""
    return [
        operation
        for site in recorded.sites
        for call, operation in zip(
            (call for call in site.calls if call.is_step), site.operations, strict=True
        )
        if call.op in (*_LAYERS, *_MULTIPLYING, *_UNSUPPORTED)
    ]


class _Placement:
    """Finds what is quantized, from the layers outwards."""

    def __init__(
        self,
        recorded: RecordedSites,
        skip: Sequence[str],
        chosen: Mapping[str, str],
        kernels: IntegerKernels,
    ) -> None:
        self.recorded, self.chosen, self.kernels = recorded, chosen, kernels
        self.skipped = skipped(skip, layer_names(recorded)) if skip else frozenset[str]()
        self.maker = {number: site for site in recorded.sites for number in site.makes}
        self.takers: dict[int, list[Site]] = {}
        for site in recorded.sites:
            for number in site.reads:
                self.takers.setdefault(number, []).append(site)
        self.features = self._features()
        self.norm_of: dict[str, Site] = {}
        self.fused: set[str] = set()
        self.wanted: set[int] = set()
        self.floats: dict[str, str] = {}
        self.needed: set[int] | None = None

    def plan(self) -> QuantizationPlan:
        layers = [site for site in self.recorded.sites if self._is_integer(site)]
        ends = {site: self._end(site) for site in layers}
        joins = [site for site in self.recorded.sites if self._joins(site)]
        if self.chosen:
            joins = self._apart_from_chosen(joins)
            self.needed = self._read_by([*layers, *joins])
        for site in layers:
            self.wanted.add(self._data(site))
            self.wanted.update(ends[site].makes)
        for site in joins:
            end = self._end(site)
            made = end.makes if end is site or end.op not in _SCALING else ()
            self.wanted.update((*self._tensors(site), *made))
        self._spread()
        return self._written(ends)

    def _features(self) -> set[int]:
        """Return the tensors that hold what the network computes from its inputs and parameters.

        Places of boxes, masks and position codes are none: 8 bits are too few for them.
        """
        found = {*self.recorded.inputs, *self.recorded.learned}
        for site in self.recorded.sites:
            # What is added to features, such as a stored code of places, leaves them features.
            taken = self._tensors(site) if site.op in _JOINING else site.reads[:1]
            chooses = any(call.op in _CHOOSING for call in site.calls)
            if taken and not chooses and found.issuperset(taken):
                found.update(site.makes)
        return found

    def _is_integer(self, site: Site) -> bool:
        for call, operation in zip(
            (call for call in site.calls if call.is_step), site.operations, strict=True
        ):
            reason = self._reason(site, call.op, operation)
            if reason is not None:
                self.floats[operation] = reason
            elif call.op in _LAYERS:
                return True
        return False

    def _reason(self, site: Site, op: str, operation: str) -> str | None:
        """Return why an operation stays float; None where it does not, or has no weight."""
        if op in _UNSUPPORTED:
            return _UNSUPPORTED[op]
        if op not in (*_LAYERS, *_MULTIPLYING):
            return None
        if operation in self.skipped:
            return "named by the option to skip"
        if operation in self.chosen:
            return self.chosen[operation]
        if site.op != op:
            function = site.name.split("|")[1]
            return f"executed inside of the torch function {function}, which hides its tensors"
        if op in _LAYERS and not set(site.calls[0].reads[1:]) <= set(self.recorded.stored):
            return "its weight or bias is computed"
        if self._data(site) in self.recorded.stored:
            return "it reads a stored tensor"
        if op in _MULTIPLYING and not self.recorded.stored.keys().isdisjoint(site.reads):
            return "it multiplies with a stored tensor, but is no linear layer"
        return self._refusal(site.calls[0]) if op in TRANSPOSED else None

    def _refusal(self, call: Call) -> str | None:
        """Return why a transposed convolution has no kernel; None where it has one."""
        reason = self.kernels.refusal(call, positive=self._is_positive(call.reads[0]))
        return f"{reason}{_REWRITABLE}" if reason and is_rewritable(call) else reason

    def _is_positive(self, number: int) -> bool:
        """Whether a tensor cannot hold a value below 0."""
        site = self.maker.get(number)
        if site is None or len(site.calls) != 1:
            return False
        if _is_fused(site) or site.op in _POSITIVE:
            return True
        keeps = _passes(site) or site.op in (*AVERAGING, *CONCATENATING)
        if site.op in ("add", "mul"):  # Of two tensors; numbers may be negative.
            keeps = len(site.reads) == 2 and site.calls[0].arguments.get("alpha", 1) == 1
        return keeps and all(self._is_positive(one) for one in site.reads)

    def _data(self, site: Site) -> int:
        return site.calls[0].reads[0]

    def _tensors(self, site: Site) -> list[int]:
        return [number for number in site.reads if number not in self.recorded.stored]

    def _joins(self, site: Site) -> bool:
        if site.op not in _JOINING or site.operation in self.floats or len(site.calls) != 1:
            return False
        stored = not self.recorded.stored.keys().isdisjoint(site.reads)
        known = self.features.issuperset(site.reads) and not stored
        return known and (len(site.reads) > 1 or site.op in CONCATENATING)

    def _apart_from_chosen(self, joins: Sequence[Site]) -> list[Site]:
        """Return the joins that take nothing of a layer that was chosen to stay float."""
        makers = makers_of(self.recorded, frozenset(layer_names(self.recorded)))
        return [
            site
            for site in joins
            if not any(makers.get(number, _NOTHING) & self.chosen.keys() for number in site.reads)
        ]

    def _read_by(self, sites: Sequence[Site]) -> set[int]:
        """Return the tensors that some of these sites read, directly or changed on the way."""
        found = {number for site in sites for number in self._tensors(site)}
        for site in reversed(self.recorded.sites):
            follows = _passes(site) or site.op in _CURVED
            if follows and not found.isdisjoint(site.makes):
                found.update(self._tensors(site)[:1])
        return found

    def _end(self, site: Site) -> Site:
        """Return the site whose result the operation, with what is fused into it, makes."""
        follower = self._only_taker(site)
        if site.op in CONCATENATING:
            return self._after_concatenation(site)
        if site.op in _JOINING:
            fits = site.op in ("add", "mul") and follower is not None and _is_fused(follower)
            self.fused.update({follower.name} if follower is not None and fits else ())
            return follower if follower is not None and fits else site
        if follower is not None and follower.op == "batch_norm" and self._is_folded(follower):
            self.norm_of[site.name] = follower
            site, follower = follower, self._only_taker(follower)
        if follower is not None and (
            _is_fused(follower) or follower.op in self.kernels.activations
        ):
            self.fused.add(follower.name)
            return follower
        return site

    def _after_concatenation(self, site: Site) -> Site:
        """Return the last of the operations that change a concatenation value by value.

        It is rounded after them alone: OpenVINO 2026.4 ends with signal 11 where a concatenation is
        rounded, with another zero point than 0, and again after nothing but such operations.
        """
        follower = self._only_taker(site)
        while follower is not None and self._is_by_value(follower):
            self.fused.add(follower.name)
            site, follower = follower, self._only_taker(follower)
        return site

    def _is_by_value(self, site: Site) -> bool:
        scales = site.op in _SCALING and len(self._tensors(site)) == 1
        return scales or site.op == "batch_norm" or _is_fused(site)

    def _only_taker(self, site: Site) -> Site | None:
        takers = self.takers.get(site.makes[0], []) if len(site.makes) == 1 else []
        returned = any(number in self.recorded.outputs for number in site.makes)
        return takers[0] if len(takers) == 1 and not returned else None

    def _is_folded(self, norm: Site) -> bool:
        arguments = norm.calls[0].arguments
        needed = [arguments[name] for name in ("running_mean", "running_var")]
        given = [arguments[name] for name in ("weight", "bias") if arguments[name] is not None]
        return all(
            value is not None and value.number in self.recorded.stored for value in needed + given
        )

    def _spread(self) -> None:
        """Add the tensors that follow from others, until there are no more."""
        before = -1
        while len(self.wanted) != before:
            before = len(self.wanted)
            for site in self.recorded.sites:
                self._follow(site)
            for site in reversed(self.recorded.sites):
                if _passes(site) and not self.wanted.isdisjoint(site.makes):
                    self.wanted.update(self._tensors(site)[:1])

    def _follow(self, site: Site) -> None:
        taken = self._tensors(site)[:1]
        known = bool(taken) and taken[0] in self.wanted
        used = self.needed is None or not self.needed.isdisjoint(site.makes)
        follows = _passes(site) or site.op in _CURVED
        if known and used and follows and site.name not in self.fused:
            self.wanted.update(site.makes)

    def _written(self, ends: Mapping[Site, Site]) -> QuantizationPlan:
        inputs = {
            place: place for number, place in self.recorded.inputs.items() if number in self.wanted
        }
        names = {n: place for n, place in self.recorded.inputs.items() if n in self.wanted}
        outputs, limits = {}, {}
        for site in self.recorded.sites:
            if self.wanted.isdisjoint(site.makes) or not site.makes:
                continue
            taken = self._tensors(site)[:1]
            shared = names.get(taken[0]) if taken and _passes(site) else None
            name = shared or site.operation
            outputs[site.name] = name
            names |= dict.fromkeys(site.makes, name)
            if shared is None and (most := _limit(site)) is not None:
                limits[name] = most
        integer = {site.name: self._layer(site, end, names) for site, end in ends.items()}
        norms = tuple(norm.name for norm in self.norm_of.values())
        return QuantizationPlan(integer, norms, outputs, inputs, limits, {}, self.floats)

    def _layer(self, site: Site, end: Site, names: dict[int, str]) -> IntegerLayer:
        norm = self.norm_of.get(site.name)
        weight, *bias = (self.recorded.stored[number] for number in site.calls[0].reads[1:])
        source, result = names[self._data(site)], names[end.makes[0]]
        folded = None if norm is None else self._folded(norm)
        bias_name = bias[0] if bias else None
        transposed = site.op in TRANSPOSED
        return IntegerLayer(site.operation, weight, bias_name, source, result, folded, transposed)

    def _folded(self, norm: Site) -> FoldedNorm:
        arguments = norm.calls[0].arguments
        keys = ("running_mean", "running_var", "weight", "bias")
        values = [arguments[key] for key in keys]
        mean, variance, scale, shift = (
            None if value is None else self.recorded.stored[value.number] for value in values
        )
        return FoldedNorm(str(mean), str(variance), scale, shift, float(arguments["eps"]))


def _passes(site: Site) -> bool:
    """Whether an operation makes only values that it takes, or 0, which every grid has."""
    if site.op == "pad":
        arguments = site.calls[0].arguments
        return arguments["mode"] != "constant" or not arguments["value"]
    return site.op in _PASSING


def _is_fused(site: Site) -> bool:
    """Whether runtimes compute an activation together with the layer before it."""
    return site.op in ("relu", "relu6") or _limit(site) is not None


def _limit(site: Site) -> float | None:
    if site.op == "relu6":
        return _RELU6
    if site.op == "hardtanh":
        arguments = site.calls[0].arguments
        if arguments["min_val"] == 0 and arguments["max_val"] == _RELU6:
            return _RELU6
    return None


def layers_of(recorded: RecordedSites) -> Iterator[str]:
    """Yield the names of the operations with a weight, and of matmuls."""
    for site in recorded.sites:
        for call, operation in zip(
            (call for call in site.calls if call.is_step), site.operations, strict=True
        ):
            if call.op in (*_LAYERS, *_MULTIPLYING, *_UNSUPPORTED):
                yield operation
