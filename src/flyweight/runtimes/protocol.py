"""Runtime protocol: open a file, run it, and list the operators that are executed.

A runtime is stateless; `open` returns a model that is held by its caller. Times are taken by
`timing.time_runs`, which is the same loop for every runtime.
"""

from __future__ import annotations  # NumPy is for the types only; see flyweight.measuring.worker

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]

FLOAT32 = "float32"

NUMBER_TYPES = frozenset(
    {"float16", "float32", "float64", "bool"}
    | {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
)
"""NumPy names of the tensor types that a runtime accepts as inputs."""


@dataclass(frozen=True)
class OpenSettings:
    """How a file is executed.

    Attributes:
        threads: Threads of one inference.
        precision: Precision in which float operations are computed; one of the runtime's
            `precisions()`. Integer operations follow the file.
        spinning: Let idle threads spin instead of sleep, where the runtime has that choice.
    """

    threads: int = 1
    precision: str = FLOAT32
    spinning: bool = False


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of a file.

    Attributes:
        name: Its name.
        type: NumPy's name of the type, such as "float32"; the runtime's own name where NumPy has
            none.
        shape: Sizes; a name or None means a free size.
    """

    name: str
    type: str
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True)
class ExecutedOperator:
    """One operator of the graph that the runtime executes after its optimisations.

    Attributes:
        name: Its name in that graph.
        kind: The runtime's name of the operation, such as "Conv" or "QLinearConv".
        precision: NumPy's name of the type that it computes in; "bfloat16" also occurs.
        nodes: Names of the nodes of the file that it computes, as far as the runtime reports them
            (ONNX Runtime reports one name for fused nodes, that of the last output); empty for an
            operator that the runtime added, such as a change of layout.
        times_ms: Wall time of each timed run, in milliseconds.
    """

    name: str
    kind: str
    precision: str
    nodes: tuple[str, ...]
    times_ms: tuple[float, ...] = ()


@dataclass(frozen=True)
class OptimizedOperator:
    """One operator of the graph that a runtime makes of a file, as the runtime describes it.

    Attributes:
        name: Its name in that graph.
        kind: The runtime's name of the operation, such as "QLinearConv" or "Deconvolution".
        precision: NumPy's name of the type that its values are multiplied or moved in; "bfloat16"
            also occurs, and "int8" stands for 8-bit integers of either sign. Empty where the
            runtime does not say.
        nodes: Names of nodes and tensors of the file that it computes, as far as the runtime keeps
            them.
        reads: Tensors that it takes, by the runtime's names.
        makes: Tensors that it makes, by the runtime's names.
    """

    name: str
    kind: str
    precision: str
    nodes: tuple[str, ...]
    reads: tuple[str, ...]
    makes: tuple[str, ...]


MakeInputs = Callable[[Sequence[TensorInfo]], "Arrays"]
"""Returns arrays for the inputs of a file."""


ReadOperators = Callable[[Path], tuple[OptimizedOperator, ...]]
"""Returns the operators in an ONNX file that a runtime wrote."""


class OpenModel(Protocol):
    """A file that a runtime has loaded and optimised."""

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """Inputs in the order of the file."""

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """Outputs in the order of the file."""

    @property
    def properties(self) -> Mapping[str, str]:
        """Texts that travel in the file, by name; in ONNX its `metadata_props`."""

    def run(self, arrays: Arrays) -> dict[str, NDArray[Any]]:
        """Return every output by name.

        Raises:
            Exception: Any error of the runtime for inputs that do not fit.
        """

    def inference(self, arrays: Arrays) -> Callable[[], object]:
        """Return the shortest call that runs the model on these arrays, for timing.

        The call takes NumPy arrays and produces NumPy arrays, as a user's call does.
        """


class Runtime(Protocol):
    """A program that executes files."""

    def open(self, path: str | Path, settings: OpenSettings) -> OpenModel:
        """Load and optimise a file.

        Raises:
            ConfigError: The precision is not supported on this machine.
            Exception: Any error of the runtime for a file that it cannot load; the exceptions
                of runtimes have no common base.
        """

    def operators(
        self,
        path: str | Path,
        settings: OpenSettings,
        make_inputs: MakeInputs,
        *,
        runs: int = 1,
        seconds: float = 0.0,
    ) -> tuple[ExecutedOperator, ...]:
        """Execute a file under the runtime's profiler and return the operators it executed.

        Args:
            path: The file.
            settings: How to execute it.
            make_inputs: Returns the arrays to run on.
            runs: Timed inferences, at least; one more warms up.
            seconds: How long to repeat, at least.

        Raises:
            ConfigError: See `open`.
            Exception: See `open`.
        """

    def optimized(
        self, path: str | Path, settings: OpenSettings, read: ReadOperators
    ) -> tuple[OptimizedOperator, ...]:
        """Return the operators that a file becomes, in order, without executing them.

        Args:
            path: The file.
            settings: How it would be executed.
            read: Reads an ONNX file, for a runtime that can only write its graph to one.

        Raises:
            ConfigError: See `open`.
            Exception: See `open`.
        """

    def versions(self) -> dict[str, str]:
        """Return the versions of the runtime and of NumPy, by name."""

    def precisions(self) -> tuple[str, ...]:
        """Return the precisions of float operations on this machine, the default first."""
