"""Files that users and files name: nothing blocks, and no more is read than is allowed."""

from __future__ import annotations

import os
import threading
from io import BytesIO
from pathlib import Path

import pytest

from runner.disk import LineTooLong, lines_of, open_regular, read_small


def test_open_regular(tmp_path: Path) -> None:
    """A regular file is read; a pipe without a writer, a device and a folder are errors at once."""
    (tmp_path / "a").write_bytes(b"text")
    os.mkfifo(tmp_path / "pipe")

    with open_regular(tmp_path / "a") as stream:
        assert stream.read() == b"text"
    for path, reason in (
        (tmp_path / "pipe", "it is a pipe, and must be a regular file"),
        ("/dev/zero", "it is a device, and must be a regular file"),
        (tmp_path, "Is a directory"),
        (tmp_path / "absent", "No such file or directory"),
    ):
        with pytest.raises(OSError, match=reason):
            open_regular(path)


def test_read_small(tmp_path: Path) -> None:
    """One byte more than allowed shows that there is more; the null device is an empty file."""
    (tmp_path / "a").write_bytes(b"0123456789")

    assert read_small(tmp_path / "a", 20) == b"0123456789"
    assert read_small(tmp_path / "a", 4) == b"01234"
    assert read_small(os.devnull, 4) == b""
    with pytest.raises(OSError, match="it is a device"):
        read_small("/dev/zero", 4)


def test_read_small_from_a_pipe(tmp_path: Path) -> None:
    """A pipe is read to its end, and one that nobody writes to is an error after a while."""
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(b"A=1\n" * 30_000,))
    writer.start()

    assert read_small(tmp_path / "pipe", 200_000) == b"A=1\n" * 30_000
    writer.join()
    with pytest.raises(TimeoutError, match="nothing is written to it"):
        read_small(tmp_path / "pipe", 10, wait_s=0.01)


def test_lines_of() -> None:
    """A line that is too long is an error with its number."""
    lines = lines_of(BytesIO(b"abcd\n\nabcdef\n"), 5)

    assert [next(lines), next(lines)] == [b"abcd\n", b"\n"]
    with pytest.raises(LineTooLong) as caught:
        next(lines)
    assert caught.value.line == 3
