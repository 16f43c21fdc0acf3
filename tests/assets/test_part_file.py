"""The file that an asset is written to until it is complete."""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from runner.assets.part_file import OverlapMismatch, PartFile, file_size, write_file
from runner.assets.receive import verify
from runner.core.model import AssetKind
from runner.errors import RunDirError


def part_with(path: Path, content: bytes) -> PartFile:
    """Return a part file that an earlier process left."""
    path.write_bytes(content)
    return PartFile(str(path), len(content))


def digest(content: bytes) -> str:
    """Return the digest that a part file should have."""
    return sha256(content).hexdigest()


def test_file_grows_with_its_digest(tmp_path: Path) -> None:
    """Size, digest and bytes agree after every batch, in a folder that is made when it is missing."""
    part = PartFile(f"{tmp_path}/new/a.mp4.part")
    part.start(0)
    part.append([b"one", b"two"])
    assert (6, digest(b"onetwo")) == (part.size, part.digest())
    part.append([b"three"])
    part.close()

    assert b"onetwothree" == Path(part.path).read_bytes()
    assert (11, digest(b"onetwothree")) == (part.size, part.digest())


def test_start_at_nothing_discards_what_is_there(tmp_path: Path) -> None:
    """A longer file leaves nothing behind the new one."""
    part = part_with(tmp_path / "a.part", b"something longer")
    part.start(0)
    part.append([b"new"])

    assert b"new" == (tmp_path / "a.part").read_bytes()
    assert (3, digest(b"new"), True) == (part.size, part.digest(), part.is_overlap_complete)
    part.close()


@pytest.mark.parametrize("batch", [[b"defghi"], [b"d", b"e", b"f", b"ghi"], [b"de", b"fghi"]])
def test_overlap_is_compared_and_not_written(batch: list[bytes], tmp_path: Path) -> None:
    """However the body is cut, the new bytes alone are appended."""
    part = part_with(tmp_path / "a.part", b"abcdef")
    assert [False, digest(b"abcdef"), True] == [part.is_hashed, part.digest(), part.is_hashed]
    part.start(3)
    part.append(batch)

    assert part.is_overlap_complete
    assert b"abcdefghi" == (tmp_path / "a.part").read_bytes()
    assert (9, digest(b"abcdefghi")) == (part.size, part.digest())
    part.close()


def test_overlap_that_ends_too_early_is_noticed(tmp_path: Path) -> None:
    """A body shorter than what it should repeat has proved nothing."""
    part = part_with(tmp_path / "a.part", b"abcdef")
    part.digest()
    part.start(3)
    part.append([b"de"])

    assert not part.is_overlap_complete
    part.close()


@pytest.mark.parametrize("batch", [[b"deX"], [b"de", b"Xghi"], [b"Xefghi"]])
def test_overlap_that_differs_changes_nothing(batch: list[bytes], tmp_path: Path) -> None:
    """The rest of another file is not put behind this one."""
    part = part_with(tmp_path / "a.part", b"abcdef")
    part.digest()
    part.start(3)
    with pytest.raises(OverlapMismatch):
        part.append(batch)
    part.close()

    assert b"abcdef" == (tmp_path / "a.part").read_bytes()


def test_file_that_is_discarded_is_gone(tmp_path: Path) -> None:
    """Also where it is gone already, and while it is open."""
    part = PartFile(f"{tmp_path}/a.part")
    part.start(0)
    part.discard()
    part.discard()

    assert not (tmp_path / "a.part").exists()


def test_file_that_is_not_an_asset_is_put_aside(tmp_path: Path) -> None:
    """A person may look at it, and the next download does not continue with it."""
    part = part_with(tmp_path / "a.mp4.part", b"<html>")
    part.quarantine()
    part.quarantine()

    assert b"<html>" == (tmp_path / "a.mp4.invalid").read_bytes()
    assert 0 == file_size(part.path)


def test_file_that_is_closed_takes_no_more(tmp_path: Path) -> None:
    """A thread that is late writes into no other file that got the same descriptor."""
    part = PartFile(f"{tmp_path}/a.part")
    part.start(0)
    part.close()
    part.close()

    with pytest.raises(ValueError, match="is not open"):
        part.append([b"late"])


def test_folder_that_is_a_file_is_an_error_that_says_so(tmp_path: Path) -> None:
    """Whichever call comes first, it names what can't be written."""
    (tmp_path / "file").write_text("")
    path = f"{tmp_path}/file/a.part"

    with pytest.raises(RunDirError, match="can't be written"):
        PartFile(path).start(0)
    with pytest.raises(RunDirError, match="can't be written"):
        PartFile(path, 5).digest()
    with pytest.raises(RunDirError, match="can't be written"):
        write_file(path, b"x")


def test_small_file_replaces_what_is_there(tmp_path: Path) -> None:
    """Its bytes and no others, in a folder that is made when it is missing."""
    path = tmp_path / "new" / "a.part"
    write_file(str(path), b"something longer")
    opened = len(os.listdir("/dev/fd"))
    write_file(str(path), b"new")

    assert opened == len(os.listdir("/dev/fd"))
    assert (b"new", 3) == (path.read_bytes(), file_size(str(path)))


def test_file_that_vanished_is_an_error_that_says_so(tmp_path: Path) -> None:
    """Somebody took it away between its last byte and the look at what it is."""
    part = PartFile(f"{tmp_path}/a.part")
    part.start(0)
    part.append([b"bytes"])
    (tmp_path / "a.part").unlink()

    with pytest.raises(RunDirError, match="a.part can't be written"):
        verify(part, AssetKind.VIDEO)


@pytest.mark.parametrize("plant", [os.symlink, os.link, lambda _victim, path: os.mkfifo(path)])
def test_what_is_not_a_file_of_the_run_is_replaced(
    plant: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    """A link or a FIFO that somebody left counts as empty, and is never written to or waited for."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine, and long enough")
    for name in ("a.part", "b.part"):
        plant(victim, tmp_path / name)
    sizes = [file_size(str(tmp_path / name)) for name in ("a.part", "b.part")]
    part = PartFile(f"{tmp_path}/a.part", sizes[0])
    part.start(0)
    part.append([b"new"])
    part.close()
    write_file(f"{tmp_path}/b.part", b"new")

    assert ([0, 0], b"mine, and long enough") == (sizes, victim.read_bytes())
    assert [b"new", b"new"] == [(tmp_path / name).read_bytes() for name in ("a.part", "b.part")]


def test_run_directory_that_was_moved_is_not_made_anew(tmp_path: Path) -> None:
    """The folders of assets are made when they are missing, but never the run directory itself."""
    (tmp_path / "run").mkdir()
    write_file(f"{tmp_path}/run/assets/05/a.part", b"x")

    for path in ("moved/assets/a.part", "moved/assets/05/a.part"):
        with pytest.raises(RunDirError, match="can't be written"):
            write_file(f"{tmp_path}/{path}", b"x")

    assert not (tmp_path / "moved").exists()
