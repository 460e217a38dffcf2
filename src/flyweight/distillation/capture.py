"""Capture: forward hooks that keep the tensors of one run of a network, with their gradients."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from flyweight.distillation.seen_tensors import SeenTensor
from flyweight.errors import TrainingError
from flyweight.graph.containers import placed_tensors, reachable_tensors


class Capture:
    """Keeps tensors of the latest run of a network.

    Args:
        tensors: What to keep.

    Attributes:
        features: The kept tensors by operation.
        returned: What the network returned; None before a run has ended.
    """

    def __init__(self, tensors: Iterable[SeenTensor]) -> None:
        self._wanted: dict[str, list[SeenTensor]] = {}
        for one in dict.fromkeys(tensors):
            self._wanted.setdefault(one.module, []).append(one)
        self._handles: list[RemovableHandle] = []
        self._calls: Counter[str] = Counter()
        self.features: dict[str, Tensor] = {}
        self.returned: Any = None

    def attach(self, model: nn.Module) -> None:
        """Register the hooks on a network; those on another one are removed.

        Raises:
            TrainingError: The network lacks a module.
        """
        self.detach()
        modules: Mapping[str, nn.Module] = dict(model.named_modules(remove_duplicate=False))
        missing = [path for path in self._wanted if path not in modules]
        if missing:
            raise TrainingError(
                "A network must have the modules that its taps were chosen in. Received one "
                f"without '{missing[0]}'. Choose the taps again after a change of structure."
            )
        self._handles.append(model.register_forward_pre_hook(_Hook(self, "", before=True)))
        for path in self._wanted:
            self._handles.append(modules[path].register_forward_hook(_Hook(self, path)))
        if "" not in self._wanted:
            self._handles.append(model.register_forward_hook(_Hook(self, "")))

    def detach(self) -> None:
        """Remove the hooks, and forget what was kept."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.clear()

    @contextmanager
    def on(self, model: nn.Module) -> Iterator["Capture"]:
        """Keep the tensors of runs within this context."""
        self.attach(model)
        try:
            yield self
        finally:
            kept, returned = self.features, self.returned
            self.detach()
            self.features, self.returned = kept, returned

    def clear(self) -> None:
        """Forget what was kept."""
        self._calls.clear()
        self.features, self.returned = {}, None

    def outputs(self) -> dict[str, Tensor]:
        """Return the tensors that the network returned, by their places."""
        return dict(placed_tensors(self.returned))

    def receive(self, path: str, result: Any) -> None:
        """Keep what a module returned."""
        call = self._calls[path]
        self._calls[path] += 1
        wanted = [one for one in self._wanted.get(path, ()) if one.call == call]
        if wanted:
            placed = dict(reachable_tensors(result, "output"))
            for one in wanted:
                if one.place in placed:
                    self.features[one.operation] = placed[one.place]
        if not path:
            self.returned = result


class _Hook:
    """A hook that copies of a network do not have: a copy is evaluated or saved, not compared."""

    def __init__(self, capture: Capture | None, path: str, *, before: bool = False) -> None:
        self._capture, self._path, self._before = capture, path, before

    def __call__(self, module: nn.Module, args: Any, result: Any = None) -> None:
        if self._capture is None:
            return
        if self._before:
            self._capture.clear()
        else:
            self._capture.receive(self._path, result)

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Hook":
        return _Hook(None, self._path, before=self._before)

    def __reduce__(self) -> Any:
        return _Hook, (None, self._path)
