"""Distribution of a scan's batches over a Ray cluster, with the same results as one process.

The driver decodes batches and writes the journal. A task receives one batch and returns the states
of the metrics for it. Ray runs a task again on another worker if its worker died. Nothing is random
in a task, so it does not matter where or how often it runs.
"""

import socket
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from flyweight.digests import digest_of_batch
from flyweight.errors import ConfigError
from flyweight.sensitivity.cut_runner import CutRunner
from flyweight.sensitivity.journal import Journal, States

if TYPE_CHECKING:
    from types import ModuleType

_TRIES = 5
"""How many times a batch is retried when workers die."""
_AHEAD = 2
"""Batches per processor that are sent ahead: one is running, one is waiting."""

_CONNECT_SECONDS = 5.0

_active: dict[str, CutRunner] = {}
"""In a worker process: the runner that it has unpacked, by the key of its scan."""


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster to scan on.

    Attributes:
        address: As `ray.init` takes it: "auto", "HOST:PORT", "ray://HOST:PORT", or "local" for a
            cluster of this machine's processors that ends with the scan.
    """

    address: str

    def fill(
        self,
        journal: Journal,
        work: CutRunner,
        batches: Iterable[Any],
        states: Callable[[CutRunner, Any], States],
    ) -> int:
        """Measure the batches that the journal lacks on the cluster; return the number of batches.

        Args:
            journal: Receives the states of every batch as soon as they are known.
            work: Runs the cuts; it is sent to every worker once.
            batches: They are decoded in this process.
            states: Returns what the metrics collect of a batch; a function of a module, because
                it is sent to the workers by name.

        Raises:
            ConfigError: Ray is not installed, the cluster cannot be reached, or it stopped.
        """
        ray = _ray()
        own_connection = not ray.is_initialized()
        if own_connection:
            self._connect(ray)
        try:
            return self._fill(ray, journal, work, batches, states)
        except (ray.exceptions.RayError, ConnectionError) as error:
            raise ConfigError(
                "A Ray cluster must be available until the scan ends. Received from "
                f"'{self.address}': {str(error).strip().splitlines()[0]}. Finished batches are "
                "saved: start the scan again to resume it."
            ) from error
        finally:
            if own_connection:
                ray.shutdown()

    def _connect(self, ray: "ModuleType") -> None:
        local = self.address == "local"
        try:
            _require_open(self.address)
            ray.init(
                address=None if local else self.address,
                log_to_driver=False,
                logging_level="error",
                include_dashboard=False if local else None,
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"A Ray cluster must be reachable. Received '{self.address}': "
                f"{str(error).strip().splitlines()[0]}. Start a cluster with: ray start "
                "--head, or use the address 'local'."
            ) from error

    def _fill(
        self,
        ray: "ModuleType",
        journal: Journal,
        work: CutRunner,
        batches: Iterable[Any],
        states: Callable[[CutRunner, Any], States],
    ) -> int:
        key = uuid.uuid4().hex
        # In a list, because Ray would unpack a bare reference in every task.
        sent = [ray.put((work.graph, work.model, work.evaluator, dict(work.plans)))]
        task = ray.remote(num_cpus=1, max_retries=_TRIES)(_states_of)
        limit = _AHEAD * max(int(ray.cluster_resources().get("CPU", 1)), 1)
        pending: dict[Any, tuple[int, str]] = {}

        def collect(most: int) -> None:
            while len(pending) > most:
                ready, _ = ray.wait(list(pending), num_returns=1)
                place, digest = pending.pop(ready[0])
                journal.add(place, digest, ray.get(ready[0]))

        count = 0
        for place, batch in enumerate(batches):
            count = place + 1
            digest = digest_of_batch(batch)
            if not journal.held(place, digest):
                pending[task.remote(key, sent, batch, states)] = place, digest
                collect(limit - 1)
        collect(0)
        return count


def _require_open(address: str) -> None:
    """Check that the address accepts connections; Ray itself would wait for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()


def _states_of(
    key: str, sent: list[Any], batch: Any, states: Callable[[CutRunner, Any], States]
) -> Any:
    """Return what metrics collect of a batch; runs in a worker."""
    torch.set_num_threads(1)
    if key not in _active:
        _active.clear()
        _active[key] = CutRunner(*_ray().get(sent[0]))
    return states(_active[key], batch)


def _ray() -> "ModuleType":
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ConfigError(
            "A scan on a cluster needs the package ray. It is not installed. "
            'Install it with: pip install "flyweight[ray]"'
        ) from error
    return ray
