"""Environment of a measurement: processor, load, versions, commit."""

import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from flyweight.errors import counted
from flyweight.processors import allowed_cores, physical_cores, usable_count


@dataclass(frozen=True)
class Environment:
    """The machine and the software of a measurement.

    Attributes:
        cpu: Model name of the processor.
        cores: Cores this process may use.
        governor: Frequency governor; None where the system does not report it.
        load_before: Load average of the last minute before measuring; None where unknown.
        load_after: The same after measuring (the measurement itself adds to it).
        system: Operating system and its version.
        python: Version of Python.
        runtimes: Runtime name to version.
        date: UTC, ISO 8601.
        commit: Git commit of flyweight, when it runs from a checkout.
    """

    cpu: str
    cores: int
    governor: str | None
    load_before: float | None
    load_after: float | None
    system: str
    python: str
    runtimes: Mapping[str, str]
    date: str
    commit: str | None


def read_environment(
    runtimes: Mapping[str, str], *, load_before: float | None, load_after: float | None
) -> Environment:
    """Return the present environment."""
    return Environment(
        cpu=cpu_model(),
        cores=usable_count(),
        governor=_governor(),
        load_before=load_before,
        load_after=load_after,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        runtimes=dict(runtimes),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=commit(Path(__file__).resolve().parents[3]),
    )


def hardware() -> str:
    """Return the processor's name and the number of its cores that this process may use."""
    return f"{cpu_model()}, {counted(usable_count(), 'core')}"


def usable_cores() -> tuple[int, ...]:
    """Return the logical cores that this process may use, in the order of preference.

    One logical core of every physical core comes first, so that two threads do not share one.
    Higher numbers come first, because systems prefer the lowest for their own work.
    """
    allowed = allowed_cores()[::-1]
    first = physical_cores(allowed)
    return (*first, *(core for core in allowed if core not in first))


def cpu_model() -> str:
    """Return the processor's name as the system reports it."""
    found = re.search(r"^model name\s*:\s*(.+)$", _read(Path("/proc/cpuinfo")) or "", re.MULTILINE)
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def commit(root: Path) -> str | None:
    """Return the commit checked out at `root`, read from git's files without running anything."""
    git = root / ".git"
    pointer = _read(git) if git.is_file() else None
    if pointer and pointer.startswith("gitdir: "):
        git = root / pointer.removeprefix("gitdir: ")
    head = _read(git / "HEAD")
    if head is None:
        return None
    if not head.startswith("ref: "):
        return head if re.fullmatch(r"[0-9a-f]{40,64}", head) else None
    name = head.removeprefix("ref: ")
    common = git / (_read(git / "commondir") or ".")
    return _read(git / name) or _read(common / name) or _packed(common / "packed-refs", name)


def _packed(path: Path, name: str) -> str | None:
    for line in (_read(path) or "").splitlines():
        if line.endswith(" " + name):
            return line.split(" ")[0]
    return None


def _governor() -> str | None:
    return _read(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"))


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None
