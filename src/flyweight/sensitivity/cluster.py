"""A scan's batches spread over a Ray cluster: the same numbers, from more than one machine.

The driver decodes batches and keeps the journal; a task takes a batch and returns what metrics
collected of it. A task whose worker died is run again elsewhere by Ray. Nothing is random in a
task, so that it does not matter where or how often it runs.
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
"""How often a batch is tried when workers die."""
_AHEAD = 2
"""Batches under way for each processor: one that is run, one that waits for it."""

_PATIENCE_SECONDS = 5.0

_at_work: dict[str, CutRunner] = {}
"""In a worker process: the network it has unpacked, by scan."""


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster to scan on.

    Attributes:
        address: As `ray.init` takes it: "auto", "HOST:PORT", "ray://HOST:PORT", or "local" for a
            cluster of this machine's processors that lasts as long as the scan.
    """

    address: str

    def fill(
        self,
        journal: Journal,
        work: CutRunner,
        batches: Iterable[Any],
        states: Callable[[CutRunner, Any], States],
    ) -> int:
        """Have what the journal lacks of every batch done by the cluster; return their number.

        Args:
            journal: Keeps every batch's states as soon as they are there.
            work: Is sent to every worker once.
            batches: Are decoded here.
            states: A function of a module that says what metrics collect of a batch.

        Raises:
            ConfigError: Ray is not installed, the cluster cannot be reached, or its workers keep
                dying.
        """
        ray = _ray()
        mine = not ray.is_initialized()
        if mine:
            self._connect(ray)
        try:
            return self._fill(ray, journal, work, batches, states)
        except (ray.exceptions.RayError, ConnectionError) as error:
            raise ConfigError(
                "A Ray cluster must stay up while it works. Received from "
                f"'{self.address}': {str(error).strip().splitlines()[0]}. What was done is kept: "
                "start the scan again."
            ) from error
        finally:
            if mine:
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
                f"{str(error).strip().splitlines()[0]}. Start one with: ray start --head, or give "
                "local."
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
        # In a list, so that a task does not unpack it unless it has to.
        sent = [ray.put((work.graph, work.model, work.evaluator, dict(work.plans)))]
        task = ray.remote(num_cpus=1, max_retries=_TRIES)(_states_of)
        most = _AHEAD * max(int(ray.cluster_resources().get("CPU", 1)), 1)
        under_way: dict[Any, tuple[int, str]] = {}

        def collect(leave: int) -> None:
            while len(under_way) > leave:
                ready, _ = ray.wait(list(under_way), num_returns=1)
                place, digest = under_way.pop(ready[0])
                journal.add(place, digest, ray.get(ready[0]))

        count = 0
        for place, batch in enumerate(batches):
            count = place + 1
            digest = digest_of_batch(batch)
            if not journal.held(place, digest):
                under_way[task.remote(key, sent, batch, states)] = place, digest
                collect(most - 1)
        collect(0)
        return count


def _require_open(address: str) -> None:
    """Knock at the door: Ray would wait for minutes where nobody opens."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_PATIENCE_SECONDS).close()


def _states_of(
    key: str, sent: list[Any], batch: Any, states: Callable[[CutRunner, Any], States]
) -> Any:
    """Return what metrics collect of a batch; runs in a worker."""
    torch.set_num_threads(1)
    if key not in _at_work:
        _at_work.clear()
        _at_work[key] = CutRunner(*_ray().get(sent[0]))
    return states(_at_work[key], batch)


def _ray() -> "ModuleType":
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ConfigError(
            "A scan over a cluster must have Ray. Received: it is not installed. "
            'Install it with: pip install "flyweight[ray]"'
        ) from error
    return ray
