import os

import pytest

from flyweight import processors


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of so many processors, with control groups from a table of files."""

    def make(count, groups="", files=(), allowed=None):
        own = tmp_path / "cgroup"
        own.write_text(groups)
        for name, text in dict(files).items():
            path = tmp_path / "fs" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        monkeypatch.setattr(processors, "_OWN_GROUPS", own)
        monkeypatch.setattr(processors, "_CGROUPS", tmp_path / "fs")
        monkeypatch.setattr(processors, "_CPU", tmp_path / "cpu")
        monkeypatch.setattr(os, "cpu_count", lambda: count)
        cores = set(range(count)) if allowed is None else allowed
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: cores, raising=False)

    return make


TWO = "200000 100000\n"


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        ("", {}, None),
        ("0::/\n", {"cpu.max": TWO}, 2),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/docker/ab\n", {"docker/ab/cpu.max": "150000 100000\n"}, 1.5),
        # The smallest limit of the group and of those above it counts.
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": TWO}, 2),
        # The path of the host, where the container sees its own group as the root.
        ("0::/docker/ab\n", {"cpu.max": TWO}, 2),
        (
            "4:memory:/\n3:cpu,cpuacct:/docker/ab\n",
            {
                "cpu,cpuacct/docker/ab/cpu.cfs_quota_us": "50000\n",
                "cpu,cpuacct/docker/ab/cpu.cfs_period_us": "100000\n",
            },
            0.5,
        ),
        (
            "3:cpu:/docker/ab\n",
            {"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"},
            3,
        ),
        (
            "3:cpu:/\n",
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
            None,
        ),
        ("0::/\n", {"cpu.max": "nonsense"}, None),
        ("0::/\n", {"cpu.max": "100000 0"}, None),
    ],
)
def test_limits_of_control_groups(machine, groups, files, limit):
    machine(64, groups, files)
    assert processors.cpu_limit() == limit


@pytest.mark.parametrize(
    ("limit", "allowed", "usable", "threads"),
    [
        (None, None, 8, None),
        ("200000 100000", None, 2, 2),
        ("150000 100000", None, 2, 2),
        ("10000 100000", None, 1, 1),
        ("6400000 100000", None, 8, 8),
        (None, {1, 3}, 2, 2),
        ("100000 100000", {1, 3}, 1, 1),
    ],
)
def test_threads_follow_limits(machine, limit, allowed, usable, threads):
    machine(8, "0::/\n", {} if limit is None else {"cpu.max": limit}, allowed)
    assert processors.usable_count() == usable
    assert processors.thread_count() == threads


def test_two_logical_cores_of_one_physical_core_count_as_one_thread(machine, tmp_path):
    machine(8, allowed={0, 1, 2, 3})
    for core in range(4):
        path = tmp_path / f"cpu/cpu{core}/topology/thread_siblings_list"
        path.parent.mkdir(parents=True)
        path.write_text("0,2\n" if core % 2 == 0 else "1,3\n")
    assert processors.physical_cores((0, 1, 2, 3)) == (0, 1)
    assert (processors.usable_count(), processors.thread_count()) == (4, 2)


@pytest.mark.parametrize(("load", "busy"), [(0.3, False), (5.9, False), (16.0, True)])
def test_a_busy_machine_is_told(machine, monkeypatch, load, busy):
    monkeypatch.delenv("FLYWEIGHT_IGNORE_LOAD")
    machine(4)
    monkeypatch.setattr(processors, "load_average", lambda: load)
    note = processors.busy_note()
    assert (note is not None) == busy
    if note is not None:
        assert "load 16.0 on 4 cores" in note
        assert "5 times as long" in note
    monkeypatch.setenv("FLYWEIGHT_IGNORE_LOAD", "1")
    assert processors.busy_note() is None


def test_a_system_without_a_load(machine, monkeypatch):
    machine(4)
    monkeypatch.delenv("FLYWEIGHT_IGNORE_LOAD")
    monkeypatch.delattr(os, "getloadavg", raising=False)
    assert processors.load_average() is None
    assert processors.busy_note() is None


@pytest.mark.parametrize(
    ("flags", "kind", "said"),
    [
        ({"avx2", "fma"}, "x86_64", "has neither VNNI nor AMX"),
        ({"avx2", "avx512f", "avx512bw"}, "AMD64", "has neither VNNI nor AMX"),
        ({"avx2", "avx_vnni"}, "x86_64", None),
        ({"avx512f", "avx512_vnni"}, "x86_64", None),
        ({"amx_int8"}, "x86_64", None),
        (None, "AMD64", "does not say whether"),
        # ARM adds in 32 bits, with and without instructions for dot products.
        ({"fp", "asimd", "asimddp"}, "aarch64", None),
        (None, "arm64", None),
    ],
)
def test_processors_that_clip_products(flags, kind, said):
    note = processors.clipping_note(None if flags is None else frozenset(flags), kind)
    assert (note is None) == (said is None)
    if note is not None:
        assert said in note
        assert "weight_bits=7" in note
        assert "\n" not in note


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx2\n\nflags\t\t: fpu\n", {"fpu", "avx2"}),
        ("Features\t: fp asimddp\n", {"fp", "asimddp"}),
        ("processor : 0\n", None),
        (None, None),
    ],
)
def test_the_extensions_of_a_processor(monkeypatch, tmp_path, text, flags):
    path = tmp_path / "cpuinfo"
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr(processors, "_CPU_INFO", path)
    assert processors.processor_flags() == flags
