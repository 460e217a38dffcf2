"""Processors that this process may use, and how busy they are.

Nothing here imports torch, because what torch reads when it loads is set by these numbers.
"""

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

_CPU = Path("/sys/devices/system/cpu")
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")
_CPU_INFO = Path("/proc/cpuinfo")
_X86 = ("x86_64", "amd64", "i386", "i686", "x86")
_EXACT_INTEGERS = frozenset({"avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8"})
"""Extensions with instructions that add products of 8 bits in 32 bits."""
_BUSY = 1.5
"""From this load for each processor of the machine on, a machine is called busy."""


def allowed_cores() -> tuple[int, ...]:
    """Return the logical cores that this process may use, by number."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def physical_cores(allowed: tuple[int, ...]) -> tuple[int, ...]:
    """Return one logical core of each physical core among `allowed`, in the same order."""
    first: dict[str, int] = {}
    for core in allowed:
        siblings = _read(_CPU / f"cpu{core}/topology/thread_siblings_list") or str(core)
        first.setdefault(siblings, core)
    return tuple(first.values())


def cpu_limit() -> float | None:
    """Return the processor time that the control groups of this process grant it, in cores.

    Containers are limited this way (`docker run --cpus 2`). The smallest limit of the group and of
    those above it counts, in version 2 (`cpu.max`) and version 1 (`cpu.cfs_quota_us`). None where
    there is no limit.
    """
    return min((limit for folder in _group_folders() for limit in _limits_in(folder)), default=None)


def usable_count() -> int:
    """Return how many processors this process can keep busy: by affinity and control groups."""
    limit = cpu_limit()
    count = len(allowed_cores())
    return count if limit is None else max(1, min(count, math.ceil(limit)))


def thread_count() -> int | None:
    """Return how many threads computations should use; None where nothing limits the process.

    Libraries count all cores of the machine. In a container that may use two of 64, they would
    start 64 threads that wait for each other.
    """
    allowed = allowed_cores()
    if cpu_limit() is None and len(allowed) == (os.cpu_count() or 1):
        return None
    return min(usable_count(), len(physical_cores(allowed)))


def load_average() -> float | None:
    """Return the load average of the last minute; None where the system does not report it."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None


def busy_note() -> str | None:
    """Return one line if programs wait for processors on this machine; None where it is not so.

    The environment variable `FLYWEIGHT_IGNORE_LOAD` turns it off.
    """
    if os.environ.get("FLYWEIGHT_IGNORE_LOAD"):
        return None
    load, count = load_average(), os.cpu_count() or 1
    if load is None or load < _BUSY * count + 0.5:
        return None
    return (
        f"note: this machine is busy (load {load:.1f} on {count} cores), so everything takes about "
        f"{load / count + 1:.0f} times as long"
    )


def processor_flags() -> frozenset[str] | None:
    """Return the names of the processor's extensions as Linux spells them; None where unknown."""
    text = _read(_CPU_INFO) or ""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return None


def clipping_note(flags: frozenset[str] | None, machine: str) -> str | None:
    """Return one line if products of 8-bit integers may be clipped here; None where they are not.

    Processors of x86 without such instructions add two products of 8 bits in 16 bits, and clip. ARM
    widens before it adds.

    Args:
        flags: From `processor_flags`.
        machine: Kind of processor, as `platform.machine` spells it.
    """
    if machine.lower() not in _X86 or (flags and flags & _EXACT_INTEGERS):
        return None
    if flags is None:
        return (
            "note: this system does not say whether its processor has VNNI; without it, products "
            "of 8-bit weights are clipped silently: compare results, or use weight_bits=7"
        )
    return (
        "note: this processor has neither VNNI nor AMX, so runtimes clip sums of products of 8-bit "
        "weights silently: use weight_bits=7 for processors like this one"
    )


def _group_folders() -> Iterator[Path]:
    """Yield the folders of the process's control groups that limit processors, and those above."""
    for line in (_read(_OWN_GROUPS) or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        # In a container, the path may be that of the host: then the root is the container's own.
        for root in (_CGROUPS / controllers, _CGROUPS / "cpu") if controllers else (_CGROUPS,):
            group = root / path.lstrip("/")
            yield from (one for one in (group, *group.parents) if root in (one, *one.parents))


def _limits_in(folder: Path) -> Iterator[float]:
    found = re.fullmatch(r"(\d+) (\d+)", _read(folder / "cpu.max") or "")
    if found is None:
        quota, period = (_read(folder / f"cpu.cfs_{name}_us") or "" for name in ("quota", "period"))
        found = re.fullmatch(r"(\d+) (\d+)", f"{quota} {period}")
    if found is not None and int(found[1]) and int(found[2]):
        yield int(found[1]) / int(found[2])


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
