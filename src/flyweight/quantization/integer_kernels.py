"""Integer kernels that one runtime has and others have not.

A network for OpenVINO uses them; any other one is for both runtimes and does without. Seen with
OpenVINO 2026.4 and ONNX Runtime 1.31; see docs/design/0037 and 0038.
"""

from dataclasses import dataclass

from flyweight.graph.program import Call

TRANSPOSED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
"""ATen names of the transposed convolutions."""
_ACTIVATIONS = frozenset(
    ["hardswish", "silu", "gelu", "hardsigmoid", "sigmoid", "leaky_relu", "elu", "mish", "tanh"]
)


@dataclass(frozen=True)
class IntegerKernels:
    """What a runtime computes on integers besides what all of them do.

    Attributes:
        activations: ATen names of those, besides ReLU and ReLU6, that it computes together with the
            layer before; nothing is rounded in between.
        transposed: Whether it has transposed convolutions.
    """

    activations: frozenset[str] = frozenset()
    transposed: bool = False

    def refusal(self, call: Call, *, positive: bool) -> str | None:
        """Return why a transposed convolution stays float; None where it has a kernel.

        Args:
            call: The operation.
            positive: Whether nothing that it reads is negative, so that its zero point is 0.
        """
        arguments = call.arguments
        if not self.transposed:
            return "transposed convolution, for which ONNX Runtime has no integer kernel"
        if arguments["groups"] != 1:
            return "transposed convolution with groups, whose scales OpenVINO does not read"
        if any(size != 1 for size in arguments["dilation"]):
            return "transposed convolution with a dilation, which OpenVINO computes wrongly"
        if not positive:
            return (
                "transposed convolution whose input may be negative; OpenVINO has an integer "
                "kernel where it is not, as after ReLU"
            )
        return None


FOR_ALL = IntegerKernels()
FOR_OPENVINO = IntegerKernels(_ACTIVATIONS, transposed=True)


def is_fused_activation(operation: str) -> bool:
    """Whether an operation of this name, such as `head.1.hardswish#2`, is such an activation."""
    return operation.rpartition(".")[2].partition("#")[0] in _ACTIVATIONS
