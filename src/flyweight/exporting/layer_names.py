"""Names of layers in an ONNX graph: those of the operations that they were, `Operation.name`.

The exporter of torch notes on every node which module ran it. Its names for the nodes themselves
are numbered through the whole network, and say nothing to a person.
"""

import ast
from collections import Counter
from typing import Any

_KINDS = {
    "Conv": "conv{}d",
    "ConvTranspose": "conv_transpose{}d",
    "DeformConv": "deform_conv{}d",
    "Gemm": "linear",
    "MatMul": "matmul",
    "Einsum": "einsum",
    "LSTM": "lstm",
    "GRU": "gru",
    "RNN": "rnn_tanh",
}
"""Operation of a layer in ONNX to PyTorch's, where the node does not state PyTorch's."""
_STATED = ("linear", "addmm", "matmul", "bmm", "mm", "scaled_dot_product_attention")
"""Operations of PyTorch that become those of ONNX under their own names."""
_CHILD = "network"
_SCOPES = "pkg.torch.onnx.name_scopes"
_CLASSES = "pkg.torch.onnx.class_hierarchy"
_CALL = "pkg.torch.onnx.fx_node"


def name_layers(proto: Any) -> None:
    """Name the layers of a graph as `graph.operations` names them, in place.

    A second call of the same operation in the same module ends in `#2`. Where one operation became
    several layers, the second ends in `/2`.

    Args:
        proto: An `onnx.ModelProto` from torch's exporter, with its notes; layers without notes
            keep their names.
    """
    weights = {item.name: item for item in proto.graph.initializer}
    calls: dict[str, str] = {}
    count: Counter[str] = Counter()
    parts: Counter[str] = Counter()
    for node in proto.graph.node:
        notes = {item.key: item.value for item in node.metadata_props}
        if node.op_type not in _KINDS or _SCOPES not in notes:
            continue
        call = notes.get(_CALL, node.name).partition(" ")[0]
        if call not in calls:
            plain = _plain_name(node, notes, weights)
            count[plain] += 1
            calls[call] = plain if count[plain] == 1 else f"{plain}#{count[plain]}"
        name = calls[call]
        parts[name] += 1
        node.name = name if parts[name] == 1 else f"{name}/{parts[name]}"


def _plain_name(node: Any, notes: dict[str, str], weights: dict[str, Any]) -> str:
    function = _last(notes.get(_CLASSES, "[]")).removeprefix("aten.").partition(".")[0]
    module = ast.literal_eval(notes[_SCOPES])[-2:-1]
    path = str(module[0]) if module else ""
    operation = function if function in _STATED else _KINDS[node.op_type]
    if "norm" in function and len(node.input) > 1 and node.input[1].endswith(".weight"):
        # A convolution that a normalisation was folded into has the notes of the normalisation.
        path = node.input[1].removesuffix(".weight")
    path = path.removeprefix(_CHILD).removeprefix(".")
    kernel = next((len(one.ints) for one in node.attribute if one.name == "kernel_shape"), 0)
    weight = weights.get(node.input[1])
    rank = kernel or (len(weight.dims) - 2 if weight is not None else 2)
    operation = operation.format(rank)
    return f"{path}.{operation}" if path else operation


def _last(text: str) -> str:
    names = ast.literal_eval(text)
    return str(names[-1]) if names else ""
