import hashlib
import os
from pathlib import Path

import pytest

from flyweight import file_digests
from flyweight.errors import FileError
from flyweight.file_digests import FileDigests, cache_folder, digest_file

LONG_AGO = 1_700_000_000


@pytest.fixture
def images(tmp_path):
    paths = [tmp_path / "set" / name for name in ("a.png", "b.png", "c.png")]
    paths[0].parent.mkdir()
    for path in paths:
        path.write_bytes(path.name.encode())
        os.utime(path, (LONG_AGO, LONG_AGO))
    return paths


@pytest.fixture
def read(monkeypatch):
    """The names of the files that were read."""
    names = []

    def digest(path):
        names.append(path.name)
        return digest_file(path)

    monkeypatch.setattr(file_digests, "digest_file", digest)
    return names


def test_digests_are_of_contents_in_order(images, tmp_path):
    expected = [hashlib.sha256(path.name.encode()).hexdigest() for path in images]
    digests = FileDigests(tmp_path / "cache")
    assert digests.of(images) == expected
    assert digests.of([*images[::-1], images[0]]) == [*expected[::-1], expected[0]]
    assert digests.of([]) == []


def test_unchanged_files_are_read_once(images, tmp_path, read):
    digests = FileDigests(tmp_path / "cache")
    first = digests.of(images)
    assert FileDigests(tmp_path / "cache").of(images) == first
    assert sorted(read) == ["a.png", "b.png", "c.png"]


@pytest.mark.parametrize("change", ["time", "size"])
def test_a_changed_file_is_read_again(images, tmp_path, read, change):
    digests = FileDigests(tmp_path / "cache")
    first = digests.of(images)
    images[1].write_bytes(b"other" if change == "time" else b"longer than before")
    when = LONG_AGO + (change == "time")
    os.utime(images[1], (when, when))
    second = digests.of(images)
    assert read[3:] == ["b.png"]
    assert [one == other for one, other in zip(first, second, strict=True)] == [True, False, True]


def test_a_file_that_has_just_changed_is_not_remembered(images, tmp_path, read):
    """It could change again within the resolution of its modification time."""
    os.utime(images[0])
    digests = FileDigests(tmp_path / "cache")
    digests.of(images)
    digests.of(images)
    assert read.count("a.png") == 2
    assert read.count("b.png") == 1


@pytest.mark.parametrize("text", ["{", "[]", '{"a.png": 3}', '{"a.png": [null, 1, "x"]}'])
def test_a_damaged_memory_is_ignored(images, tmp_path, text):
    digests = FileDigests(tmp_path / "cache")
    first = digests.of(images)
    (memory,) = (tmp_path / "cache").iterdir()
    memory.write_text(text)
    assert digests.of(images) == first


def test_a_memory_that_cannot_be_written_is_done_without(images, tmp_path):
    (tmp_path / "file").write_text("")
    assert len(FileDigests(tmp_path / "file" / "cache").of(images)) == 3


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileError, match=r"must be readable.*none\.png"):
        FileDigests(tmp_path).of([tmp_path / "none.png"])


def test_the_memory_is_in_the_users_cache_folder(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache_folder() == Path("/caches/flyweight/digests")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert cache_folder() == Path("/home/somebody/.cache/flyweight/digests")
