"""Where a run's directory is: it depends on the manifest's place alone, and a second run elsewhere is asked about."""

from __future__ import annotations

import json
import os
from pathlib import Path
from threading import Event

import pytest

from runner.api.run_facts import KnownRun, default_run_dir, known_run, series_of
from runner.api.state_dir import (
    last_changes,
    remember,
    require_continued,
    runs_elsewhere,
    runs_of,
)
from runner.core.lifecycle import State
from runner.errors import RunDirError, StoreMissing
from tests.api.rundir import make_run, write_manifest


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use a state folder of the test's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def place(tmp_path: Path, manifest: str, *, simulate: bool = False) -> str:
    """Return the default run directory of a manifest, relative to the test's folder."""
    found = default_run_dir(tmp_path / manifest, "kittens", simulate=simulate)
    return os.path.relpath(found, tmp_path)


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        ((), "a/b/c/output/kittens"),
        (("a/b/c/output",), "a/b/c/output/kittens"),
        (("a/b/output", "a/output", "a/.git"), "a/b/output/kittens"),
        (("a/b/output", "output"), "a/b/c/output/kittens"),
        (("a/output", "a/.git"), "a/output/kittens"),
        (("output", "a/.git"), "a/b/c/output/kittens"),
        (("a/output", "a/b/c/.git"), "a/b/c/output/kittens"),
    ],
    ids=[
        "none",
        "beside",
        "nearest",
        "no repository",
        "root of the repository",
        "outside the repository",
        "another repository",
    ],
)
def test_nearest_output_folder_up_to_the_root_of_the_repository(
    folders: tuple[str, ...], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The directory is the same from wherever the command is typed.
    """
    for folder in ("a/b/c", *folders):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)

    for here in (tmp_path, tmp_path / "a", tmp_path / "a/b/c", Path("/")):
        monkeypatch.chdir(here)
        assert expected == place(tmp_path, "a/b/c/kittens.yaml")
    assert f"{expected}-simulated" == place(tmp_path, "a/b/c/kittens.yaml", simulate=True)


def test_path_is_short_below_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A path to paste is relative where that is shorter.
    """
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    below = default_run_dir(Path("kittens.yaml"), "kittens", simulate=False)
    monkeypatch.chdir(tmp_path / "sub")
    above = default_run_dir(Path("../kittens.yaml"), "kittens", simulate=False)

    assert (Path("output/kittens"), tmp_path / "output/kittens") == (below, above)


@pytest.mark.parametrize(
    ("name", "output", "series"),
    [
        ("kittens", None, None),
        ("nightly-${date}", None, "nightly-${date}"),
        ("night-${day}", "output/fixed", "night-${day}"),
        ("kittens", "/o/k-${date}", "/o/k-${date}"),
    ],
)
def test_series(name: str, output: str | None, series: str | None) -> None:
    """
    Directories of a series have a name, or an -o, with placeholders in common.
    """
    assert series == series_of(name, None if output is None else Path(output))


def paid_run(tmp_path: Path, name: str, *, state: State = State.SUCCEEDED) -> tuple[Path, Path]:
    """Make a run that a manifest has had, and remember it; return the manifest and the directory."""
    manifest = write_manifest(tmp_path / "kittens.yaml", "a")
    run_dir = make_run(tmp_path / name, manifest, {"a": state})
    remember(manifest, known_run(run_dir, "kittens", None))
    return manifest, run_dir


def refuse(question: str) -> bool:
    """Answer with no."""
    return False


def test_run_elsewhere_is_refused_and_named(state: Path, tmp_path: Path) -> None:
    """
    A new directory for a manifest that was paid for in another one is an error with both ways out.
    """
    manifest, run_dir = paid_run(tmp_path, "one")

    with pytest.raises(RunDirError, match=f"was run in {run_dir}; a new run in .* would pay") as caught:
        require_continued(manifest, known_run(tmp_path / "two", "kittens", None), refuse)

    assert f"-o {run_dir}" in str(caught.value.hint)
    assert "--new" in str(caught.value.hint)


def test_person_decides(state: Path, tmp_path: Path) -> None:
    """
    The question says what it costs, and yes begins the run.
    """
    manifest, _ = paid_run(tmp_path, "one")
    asked: list[str] = []

    def agree(question: str) -> bool:
        asked.append(question)
        return True

    require_continued(manifest, known_run(tmp_path / "two", "kittens", None), agree)

    assert "pay for its jobs again?" in asked[0]


def test_moved_run_is_asked_about(state: Path, tmp_path: Path) -> None:
    """
    A directory that is gone may have been moved with all that was paid for; it is forgotten once a new run began.
    """
    manifest, run_dir = paid_run(tmp_path, "one")
    run_dir.rename(tmp_path / "moved")
    again = known_run(run_dir, "kittens", None)

    with pytest.raises(RunDirError, match="moved or deleted"):
        require_continued(manifest, again, refuse)
    make_run(run_dir, manifest, {"a": State.PENDING})
    remember(manifest, again)
    require_continued(manifest, again, refuse)

    assert (again,) == runs_of(manifest)


def test_lost_database_is_told_as_such(state: Path, tmp_path: Path) -> None:
    """
    A directory with results and no run.db was neither moved nor deleted: its results are the way out.
    """
    manifest, run_dir = paid_run(tmp_path, "one")
    (run_dir / "run.db").unlink()
    (run_dir / "results.jsonl").touch()

    with pytest.raises(StoreMissing) as refused:
        require_continued(manifest, known_run(run_dir, "kittens", None), refuse)

    assert "runner rerun" in str(refused.value.hint)


def test_what_is_not_a_second_run(state: Path, tmp_path: Path) -> None:
    """
    A run that continues, one after another that paid for nothing, and another date of a series begin without a question.
    """
    manifest, run_dir = paid_run(tmp_path, "one", state=State.PENDING)
    other = write_manifest(tmp_path / "other.yaml", "a")
    night = make_run(tmp_path / "night-1", other, {"a": State.SUCCEEDED})
    remember(other, known_run(night, "night-1", "night-${day}"))

    assert () == runs_elsewhere(manifest, known_run(run_dir, "kittens", None))
    assert () == runs_elsewhere(manifest, known_run(tmp_path / "two", "kittens", None))
    assert () == runs_elsewhere(other, known_run(tmp_path / "night-2", "night-2", "night-${day}"))
    assert runs_elsewhere(other, known_run(tmp_path / "elsewhere", "night-1", "night-${day}"))
    assert runs_elsewhere(other, known_run(tmp_path / "renamed", "renamed", None))


def test_dated_output_is_a_series_of_one_name(state: Path, tmp_path: Path) -> None:
    """
    With the date in -o each night has the same name, and is another run all the same.
    """
    manifest = write_manifest(tmp_path / "kittens.yaml", "a")
    series = f"{tmp_path}/n-${{date}}"
    night = make_run(tmp_path / "n-1", manifest, {"a": State.SUCCEEDED})
    remember(manifest, known_run(night, "kittens", series))

    assert () == runs_elsewhere(manifest, known_run(tmp_path / "n-2", "kittens", series))


def test_memory_is_of_the_manifest_file(state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A relative path, or a link to the manifest, is the same manifest.
    """
    manifest, _ = paid_run(tmp_path, "one")
    (tmp_path / "link.yaml").symlink_to(manifest)
    monkeypatch.chdir(tmp_path)

    assert 1 == len(runs_of(Path("kittens.yaml"))) == len(runs_of(Path("link.yaml")))


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff", b'[{"run_dir": 1}]'])
def test_damaged_memory_is_none(content: bytes, state: Path, tmp_path: Path) -> None:
    """
    What can't be read is as if there was nothing, and is replaced.
    """
    manifest, run_dir = paid_run(tmp_path, "one")
    (path,) = (state / "runner").iterdir()
    path.write_bytes(content)

    assert () == runs_of(manifest)
    remember(manifest, known_run(run_dir, "kittens", None))
    assert 1 == len(runs_of(manifest))


def test_state_folder_that_cannot_be_written_does_not_matter(state: Path, tmp_path: Path) -> None:
    """
    A run needs no memory of others.
    """
    state.write_text("a file")

    manifest, _ = paid_run(tmp_path, "one")

    assert () == runs_of(manifest)


def test_memory_is_bounded(state: Path, tmp_path: Path) -> None:
    """
    The oldest runs of a manifest are forgotten first, and so are the oldest manifests.
    """
    manifest, run_dir = paid_run(tmp_path, "one")
    (path,) = (state / "runner").iterdir()
    many = [{"run_dir": str(run_dir), "name": str(n)} for n in range(300)]
    path.write_text(json.dumps(many))
    for n in range(1100):
        old = path.with_name(f"runs-{n}.json")
        old.touch()
        os.utime(old, (n, n))
    new = make_run(tmp_path / "new", manifest, {"a": State.SUCCEEDED})

    remember(manifest, known_run(new, "new", None))

    assert 100 == len(runs_of(manifest))
    assert KnownRun(str(new), "new") == runs_of(manifest)[-1]
    assert 1000 == len(list(path.parent.iterdir()))
    assert not path.with_name("runs-0.json").exists()


def test_the_oldest_manifests_are_forgotten_together(tmp_path: Path, state: Path) -> None:
    """A user's thousand newest manifests are known, and up to a hundred more, so that few runs look at the age of all."""
    folder = state / "runner"
    folder.mkdir(parents=True)
    for number in range(1099):
        path = folder / f"runs-{number:04}.json"
        path.touch()
        os.utime(path, (number, number))

    remember(tmp_path / "a.yaml", known_run(tmp_path / "a", "a", None))
    assert 1100 == len(list(folder.iterdir()))
    remember(tmp_path / "b.yaml", known_run(tmp_path / "b", "b", None))

    left = sorted(path.name for path in folder.glob("runs-0*.json") if len(path.stem) == len("runs-0000"))
    assert (1000, "runs-0101.json") == (len(list(folder.iterdir())), left[0])


def test_a_disk_that_does_not_answer_is_not_waited_for(tmp_path: Path) -> None:
    """Directories in other folders are checked too, and those that could not be are named."""
    dead, alive, gone = tmp_path / "dead" / "run", tmp_path / "alive" / "run", tmp_path / "alive" / "gone"
    answers, silent = Event(), list[Path]()

    def changed_at(run_dir: Path) -> float | None:
        if run_dir == dead:
            answers.wait()
        return 1.0 if run_dir == alive else None

    try:
        found = last_changes([dead, alive, gone], silent.append, changed_at=changed_at, within_s=0.2)
    finally:
        answers.set()

    assert {alive: 1.0, gone: None} == found
    assert [dead] == silent
