"""Where a run directory is: a copy does not continue while its original is there, and a move is no copy."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from runner.errors import RunDirError
from runner.store.place import Place, require_original
from runner.store.store import Store


@pytest.fixture
def original(tmp_path: Path) -> Path:
    """Make a run directory that knows where it is."""
    path = tmp_path / "original"
    note(path)
    return path


def note(run_dir: Path) -> Place | None:
    """Open a run directory, as each command does that may submit."""
    with Store(run_dir) as store:
        return store.note_place()


def require(run_dir: Path) -> None:
    """Check that a run directory may submit."""
    with Store(run_dir) as store:
        require_original(store.reader)


def test_copy_is_refused_while_its_original_is_there(original: Path, tmp_path: Path) -> None:
    """
    The copy names the original, which continues; so does the copy once the original is gone, with a warning.
    """
    copy = tmp_path / "copy"
    shutil.copytree(original, copy)

    assert note(copy) is None
    with pytest.raises(RunDirError, match=f"a copy of {original}, which is still there"):
        require(copy)
    assert note(original) is None
    require(original)
    shutil.rmtree(original)
    known = note(copy)
    require(copy)
    assert known is not None
    assert str(original) == known.path
    assert note(copy) is None


def test_copy_in_the_place_of_its_original_goes_on(original: Path, tmp_path: Path) -> None:
    """
    A copy that was refused, and then takes the place of what it was copied from, is that run.
    """
    copy = tmp_path / "copy"
    shutil.copytree(original, copy)
    note(copy)
    shutil.rmtree(original)
    copy.rename(original)

    note(original)

    require(original)


def test_a_move_is_no_copy(original: Path, tmp_path: Path) -> None:
    """
    On one disk a moved directory has the same files: nothing is warned about, and another run may take its place.
    """
    moved = tmp_path / "moved"
    original.rename(moved)
    note(original)

    assert note(moved) is None
    require(moved)


def test_other_paths_of_one_directory_are_no_copies(original: Path, tmp_path: Path) -> None:
    """
    A link; and a mount that shows the same files as others, where the lock has what this process wrote into it.
    """
    link, mount = tmp_path / "link", tmp_path / "mount"
    link.symlink_to(original)

    assert note(link) is None
    require(link)
    shutil.copytree(original, mount)
    with Store(mount) as store:
        shutil.copy(mount / ".lock", original / ".lock")
        store.note_place()
        require_original(store.reader)


@pytest.mark.parametrize("name", ["run.db", ".lock"])
def test_what_is_at_the_old_place_does_not_block(name: str, original: Path, tmp_path: Path) -> None:
    """
    The old path may be anything, as that of a directory from somebody else.
    """
    copy = tmp_path / "copy"
    shutil.copytree(original, copy)
    (original / name).unlink()
    os.mkfifo(original / name)

    note(copy)

    require(copy)


def test_a_damaged_place_is_none(original: Path) -> None:
    """
    A place that can't be read is written anew.
    """
    with Store(original) as store, store.transaction() as connection:
        connection.execute("UPDATE meta SET value = '[1]' WHERE key = 'place'")

    assert note(original) is None
    with Store(original) as store:
        assert str(original) in (store.meta("place") or "")
