import os

import pytest

from flyweight.untrusted.file_bytes import is_file, open_file, read_bytes, read_text, require_file


def test_bytes_and_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfa\r\nb\rc\n\xc3\xa4")
    assert read_bytes(path) == path.read_bytes()
    assert read_text(path) == "a\nb\nc\nä"
    (tmp_path / "link").symlink_to(path)
    assert read_text(tmp_path / "link") == "a\nb\nc\nä"


def test_no_more_bytes_than_the_bound(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"abcd")
    assert read_bytes(path, 4) == b"abcd"
    with pytest.raises(OSError, match="more than the 3 bytes that are read"):
        read_bytes(path, 3)


def test_a_pipe_is_refused_without_waiting_for_its_writer(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path / "link"):
        for read in (open_file, require_file, read_bytes, read_text):
            with pytest.raises(OSError, match="it is a pipe, where an ordinary file is read"):
                read(path)


@pytest.mark.parametrize("path", ["/dev/null", "/dev/zero"])
def test_a_device_is_refused(path):
    with pytest.raises(OSError, match="it is a device"):
        read_bytes(path)


@pytest.mark.parametrize("name", ["a\0b", "\ud800.png", "x" * 300, "missing"])
def test_names_of_no_file(tmp_path, name):
    with pytest.raises(OSError):  # noqa: PT011 - the reason is the system's
        read_bytes(tmp_path / name)
    assert not is_file(tmp_path / name)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(IsADirectoryError):
        read_bytes(tmp_path)
    assert not is_file(tmp_path)
