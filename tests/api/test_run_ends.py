"""How a run ends if something around it fails: its observer, or the writing of its files."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from datetime import date
from pathlib import Path

import pytest
from msgspec.structs import replace

from runner.api.blocking import run_async
from runner.api.budget import repeats
from runner.api.options import IfLocked, RunOptions
from runner.api.report import restore_missing_files
from runner.api.run import resume, run
from runner.api.run_result import Callbacks, result_json
from runner.core.lifecycle import State
from runner.core.model import OnChanged
from runner.core.settings import Settings
from runner.engine.events import Notice, RunEvent
from runner.errors import StoreDamaged
from runner.manifest.loader import ProblemCollector, load
from runner.store.store import Store
from runner.store.work_list import JobFilter
from tests.api.rundir import make_run, write_manifest

FAILING = """
version: 1
generate_s: 0.01
rules: [{match: {prompt: kitten a}, task: {end: failed}}]
"""
SIMULATED = RunOptions(simulate=True, scenario=str(Path(__file__).with_name("quick.yaml")))


def break_pipe(event: object) -> None:
    """Fail as a closed terminal does."""
    raise BrokenPipeError


async def test_failing_observer_does_not_stop_the_run(tmp_path: Path) -> None:
    """
    An observer that fails at every event, such as a closed terminal, stops nothing.
    """
    manifest = write_manifest(tmp_path / "m.yaml", "a", "b")

    result = await run_async(manifest, output=tmp_path / "out", options=SIMULATED, observe=break_pipe)

    assert (0, 2) == (result.exit_code, result.counts[State.SUCCEEDED])


async def test_results_that_cannot_be_written_do_not_hide_how_the_run_ended(tmp_path: Path) -> None:
    """
    The exit code is 3, and the result has the reason and everything else that is known of the run.
    """
    manifest = write_manifest(tmp_path / "m.yaml", "a", "b")
    (tmp_path / "out" / "summary.json").mkdir(parents=True)

    result = await run(manifest, output=tmp_path / "out", options=SIMULATED)

    assert (3, 2) == (result.exit_code, result.counts[State.SUCCEEDED])
    assert "can't be written" in result.stops[0].message


async def test_page_that_is_damaged_while_the_run_works_stops_it(tmp_path: Path) -> None:
    """
    The reason is the disk, and no bug: the result says so with what is known, and the next command refuses the directory.
    """
    manifest = write_manifest(tmp_path / "m.yaml", "a", "b")
    run_dir = make_run(tmp_path / "out", manifest, {}, simulate=True)
    with closing(sqlite3.connect(run_dir / "run.db")) as database:
        (page,) = database.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'specs'").fetchone()
        (size,) = database.execute("PRAGMA page_size").fetchone()

    def damage(engine: object) -> None:
        with open(run_dir / "run.db", "r+b") as file:
            file.seek((page - 1) * size)
            file.write(b"\xff" * size)

    result = await resume(run_dir, Callbacks(on_started=damage), options=SIMULATED)

    assert (3, ["store"]) == (result.exit_code, [stop.reason.value for stop in result.stops])
    assert "can't be read as the database of a run" in result.stops[0].message
    assert 2 == result.counts[State.PENDING] == result_json(result)["by_status"]["pending"]
    with pytest.raises(StoreDamaged):
        await resume(run_dir, options=SIMULATED)


@pytest.mark.parametrize("name", ["results.jsonl", "summary.json", "report.html", "failed.yaml"])
@pytest.mark.parametrize("again", ["run", "resume", "report"])
async def test_missing_file_is_written_again(name: str, again: str, tmp_path: Path) -> None:
    """
    A derived file that was deleted comes back with the next command, which does nothing else.
    """
    manifest, run_dir = write_manifest(tmp_path / "m.yaml", "a", "b"), tmp_path / "out"
    failing = replace(SIMULATED, scenario=str(tmp_path / "failing.yaml"))
    (tmp_path / "failing.yaml").write_text(FAILING)
    await run(manifest, output=run_dir, options=failing)
    before = sorted(path.name for path in run_dir.iterdir())
    (run_dir / name).unlink()

    if again == "report":
        restore_missing_files(run_dir, now_at=0.0)
    else:
        started = (
            run(manifest, output=run_dir, options=failing)
            if again == "run"
            else resume(run_dir, options=failing)
        )
        assert (await started).did_nothing

    assert before == sorted(path.name for path in run_dir.iterdir())


async def test_failed_manifest_of_a_simulated_run_has_its_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    What did not succeed in a rehearsal is run with the manifest's gateway, limits and waits, not with the simulator's.
    """
    manifest = write_manifest(tmp_path / "m.yaml", "a")
    monkeypatch.delenv("POWERTOKENS_BASE_URL", raising=False)
    pace = "poll: {first: 7s}\ntimeouts: {submit: 50s}\ngateway: {base_url: 'https://own.example'}\n"
    manifest.write_text(manifest.read_text() + pace)
    (tmp_path / "failing.yaml").write_text(FAILING)

    await run(
        manifest,
        output=tmp_path / "out",
        options=replace(SIMULATED, scenario=str(tmp_path / "failing.yaml")),
    )

    today = date(2026, 11, 21)
    before, after = (
        load(path, ProblemCollector(), variables={}, today=today).header.settings
        for path in (manifest, tmp_path / "out" / "failed.yaml")
    )
    assert before == replace(after, name=before.name)


@pytest.mark.slow
async def test_old_video_keeps_the_request_that_made_it(tmp_path: Path) -> None:
    """
    If a changed job fails, its old video stays in the results with its own request, until a new one replaces it.
    """
    manifest, run_dir = write_manifest(tmp_path / "m.yaml", "a"), tmp_path / "out"
    (tmp_path / "failing.yaml").write_text(FAILING.replace("kitten a", "puppy a"))
    failing = replace(SIMULATED, scenario=str(tmp_path / "failing.yaml"), on_changed=OnChanged.RERUN)
    await run(manifest, output=run_dir, options=failing)
    manifest.write_text(manifest.read_text().replace("kitten $", "puppy $"))
    failed = await run(manifest, output=run_dir, options=failing)

    (line,) = map(json.loads, (run_dir / "results.jsonl").read_text().splitlines())
    assert (1, "failed", "puppy a") == (failed.exit_code, line["status"], line["request"]["prompt"])
    assert "kitten a" == line["assets"][0]["request"]["prompt"]
    assert "kitten a" in (run_dir / "report.html").read_text()

    manifest.write_text(manifest.read_text().replace("puppy $", "cat $"))
    await run(manifest, output=run_dir, options=failing)
    (line,) = map(json.loads, (run_dir / "results.jsonl").read_text().splitlines())
    assert ("succeeded", False) == (line["status"], "request" in line["assets"][0])


@pytest.mark.slow
async def test_waiting_for_the_lock_counts_as_run_time(tmp_path: Path) -> None:
    """
    `--max-runtime` counts from the call: if it is over when the directory is free, nothing is submitted.
    """
    manifest = write_manifest(tmp_path / "m.yaml", "a")
    options = replace(SIMULATED, if_locked=IfLocked.WAIT, max_runtime=0.5)
    is_waiting = asyncio.Event()

    def observe(event: RunEvent) -> None:
        if isinstance(event, Notice) and event.kind == "waiting":
            is_waiting.set()

    with Store(tmp_path / "out"):
        running = asyncio.create_task(
            run(manifest, Callbacks(observe), output=tmp_path / "out", options=options)
        )
        await is_waiting.wait()
    result = await running

    assert (6, 1) == (result.exit_code, result.counts[State.PENDING])


async def test_uncertain_jobs_of_a_dead_process_are_reported(tmp_path: Path) -> None:
    """
    A job that a dead process left between intent and answer is uncertain, and there is a notice.
    """
    manifest = write_manifest(tmp_path / "m.yaml", "a")
    run_dir = make_run(tmp_path / "out", manifest, {"a": State.SUBMITTING}, simulate=True)
    events: list[RunEvent] = []

    result = await resume(run_dir, Callbacks(events.append))

    assert 1 == result.counts[State.UNCERTAIN]
    (message,) = [
        event.message for event in events if isinstance(event, Notice) and event.kind == "recovered"
    ]
    assert "1 job is uncertain" in message


@pytest.mark.parametrize(
    ("pending", "has_cost", "selected"), [(0, True, 1), (3, True, 4), (10_000, False, 1)]
)
def test_what_is_left_is_counted_without_a_list_of_pending_jobs(
    tmp_path: Path, pending: int, has_cost: bool, selected: int
) -> None:
    """A rerun would submit pending jobs and those that failed; of many pending ones, no list is made to count them."""
    manifest = write_manifest(tmp_path / "m.yaml", "a", "b")
    run_dir = make_run(tmp_path / "out", manifest, {"a": State.FAILED, "b": State.SUCCEEDED})
    with Store(run_dir) as store:
        with store.transaction() as connection:
            connection.executemany(
                "INSERT INTO jobs (job_id, idx, model, digest, state) VALUES (?, ?, 'm', 'd', 'pending')",
                ((f"p{n}", 2 + n) for n in range(pending)),
            )
            connection.execute(
                "INSERT INTO specs SELECT seq, '{}', '{}', '', '[]', '', 0, 0, NULL FROM jobs "
                "WHERE seq NOT IN (SELECT seq FROM specs)"
            )

        resumed, rerun = repeats(store, Settings(name="kittens"), JobFilter())

        (listed,) = store.reader.execute("SELECT count(*) FROM selected").fetchone()
    assert (pending, pending + 1) == (resumed.jobs, rerun.jobs)
    assert (has_cost, selected) == (rerun.cost is not None, listed)
