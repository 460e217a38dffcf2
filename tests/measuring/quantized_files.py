"""ONNX files of one layer that runs on integers, and what can be wrong with it."""

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

TYPES = {"u8": np.uint8, "s8": np.int8, "u16": np.uint16, "s16": np.int16, "s32": np.int32}
CHANNELS = 8
_STEP = 0.02


@dataclass(frozen=True)
class OneLayer:
    """A layer between quantizers; the defaults run on integers in both runtimes."""

    kind: str = "Conv"
    after: tuple[str, ...] = ()  # between the layer and the quantizer of its result
    quantized_input: bool = True
    quantized_weight: bool = True
    quantized_result: bool = True
    data: str = "u8"
    zero: int = 128
    zero_after: int | None = None
    step_after: float = 0.05
    input_by_channel: bool = False
    weight: str = "s8"
    weight_zero: int = 0
    weight_axis: int | None = -1  # -1: the right one; None: one scale
    bias: str = "s32"  # a type; "float"; "" for none
    bias_factor: float = 1.0
    read_twice: bool = False

    def save(self, path):
        onnx.save(_Writer(self).model(), path)
        return path


class _Writer:
    def __init__(self, layer):
        self.layer, self.nodes, self.stored = layer, [], []
        self.random = np.random.default_rng(0)

    def store(self, name, values):
        self.stored.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def add(self, kind, inputs, made, **attributes):
        self.nodes.append(helper.make_node(kind, inputs, [made], name=f"the_{made}", **attributes))
        return made

    def grid(self, name, step, zero, kind):
        shape = np.shape(step)
        self.store(f"{name}_s", np.asarray(step, np.float32))
        self.store(f"{name}_z", np.full(shape, zero, TYPES[kind]))
        return [f"{name}_s", f"{name}_z"]

    def rounded(self, tensor, name, step, zero):
        parts = self.grid(name, step, zero, self.layer.data)
        axis = {"axis": 1} if np.ndim(step) else {}
        self.add("QuantizeLinear", [tensor, *parts], f"{name}_q", **axis)
        return self.add("DequantizeLinear", [f"{name}_q", *parts], f"{name}_d", **axis)

    def weight(self, shape, axis):
        """Store the weight; return its name and scales."""
        layer = self.layer
        if not layer.quantized_weight:
            return self.store("w", self.random.standard_normal(shape).astype(np.float32)), 0.01
        low, high = (-120, 120) if layer.weight == "s8" else (0, 255)
        self.store("w_i", self.random.integers(low, high, shape).astype(TYPES[layer.weight]))
        wanted = axis if layer.weight_axis == -1 else layer.weight_axis
        count = () if wanted is None else shape[wanted]
        step = np.float32(0.005) + np.float32(0.01) * self.random.random(count, np.float32)
        parts = self.grid("w", step, layer.weight_zero, layer.weight)
        places = {} if wanted is None else {"axis": wanted}
        return self.add("DequantizeLinear", ["w_i", *parts], "w", **places), step

    def bias(self, step):
        kind = self.layer.bias
        if kind == "float":
            return [self.store("b", np.ones(CHANNELS, np.float32))]
        if not kind or self.layer.kind == "MatMul":
            return []
        steps = np.full(CHANNELS, step * np.float32(_STEP * self.layer.bias_factor), np.float32)
        self.store("b_i", self.random.integers(-100, 100, CHANNELS).astype(TYPES[kind]))
        return [self.add("DequantizeLinear", ["b_i", *self.grid("b", steps, 0, kind)], "b", axis=0)]

    def followed(self, tensor):
        for place, kind in enumerate(self.layer.after):
            more = []
            if kind == "Clip":
                more = [self.store("low", np.float32(0)), self.store("high", np.float32(6))]
            if kind == "Add":
                more = [self.store("one", np.float32(1))]
            tensor = self.add(kind, [tensor, *more], f"after{place}")
        return tensor

    def model(self):
        layer = self.layer
        image = layer.kind.startswith("Conv")
        shape = [1, CHANNELS, 10, 10] if image else [4, CHANNELS]
        sizes = [CHANNELS, CHANNELS, 3, 3] if image else [CHANNELS, CHANNELS]
        tensor = "x"
        if layer.quantized_input:
            step = np.full(CHANNELS, _STEP) if layer.input_by_channel else _STEP
            tensor = self.rounded("x", "in", step, layer.zero)
        right = {"Conv": 0, "ConvTranspose": 1, "Gemm": 0, "MatMul": 1}[layer.kind]
        weight, steps = self.weight(sizes, right)
        transposed = {"transB": 1} if layer.kind == "Gemm" else {}
        self.add(layer.kind, [tensor, weight, *self.bias(steps)], "y", **transposed)
        outputs = ["z"]
        if layer.read_twice:
            outputs.append(self.add("Tanh", ["y"], "tanh"))
        tensor = self.followed("y")
        if layer.quantized_result:
            zero = layer.zero if layer.zero_after is None else layer.zero_after
            tensor = self.rounded(tensor, "out", layer.step_after, zero)
        self.add("Neg", [tensor], "z")
        graph = helper.make_graph(
            self.nodes,
            "one layer",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            self.stored,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
