"""`--journal`: what is refused at the start, how a run continues elsewhere, and what commands do with its directory."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from runner.api.journals import journal_of
from runner.objects import open_store
from runner.objects.base import FolderStore
from runner.store.store import Store
from tests.cli.command import CommandResult, runner
from tests.media.samples import png
from tests.objects.s3 import FaultyS3

MANIFEST = """
version: 1
name: kittens
limits: {in_flight: 8}
retry: {base: 50ms, cap: 100ms}
jobs:
  - id: job-${n}
    repeat: 6
    request: {model: seedance-1-0-pro-250528, prompt: 'kitten ${n}', seconds: 4, size: 480p}
"""
SCENARIO = """
version: 1
generate_s: [0.05, 0.1]
rules: [{name: answer lost, match: {prompt: 'kitten 3'}, submit: {fault: reset, created: true}}]
"""


def run(journal: str, *options: object) -> CommandResult:
    """Run the manifest with the simulator and a journal."""
    return runner(
        "run", "m.yaml", "--simulate", "--scenario", "scenario.yaml", "--journal", journal, *options
    )


@pytest.mark.slow
def test_a_run_goes_on_elsewhere(folder: Path, s3: FaultyS3) -> None:
    """With S3: few requests a job; in another directory the run is known, and files are fetched, not paid for again."""
    first = run("s3://videos/run", "-o", "a")
    assert 4 == first.exit_code
    puts = [path for method, path in s3.requests if method == "PUT"]
    assert len(puts) <= 6 * 3 + 6
    shutil.copytree("a", "b", ignore=lambda _, names: [name for name in names if name != "simulator.jsonl"])

    again = run("s3://videos/run", "-o", "b")

    assert 4 == again.exit_code
    assert "b was brought up to date from its journal" in again.stderr
    assert (Path("a/assets/job-1.mp4").read_bytes()) == Path("b/assets/job-1.mp4").read_bytes()
    for line in map(json.loads, Path("b/results.jsonl").read_text().splitlines()):
        assert 1 == len(line["attempts"])
    # The first directory has not heard of it, and is brought up to date as well.
    assert "brought up to date" in runner("resume", "a").stderr


@pytest.mark.slow
def test_lost_answers_of_the_server_fence_nobody(folder: Path, s3: FaultyS3) -> None:
    """Every third append is done and its answer lost, or answered with an error: the run ends as without faults."""
    appends = iter(range(10**6))

    def fault(method: str, path: str) -> str | None:
        is_append = method == "PUT" and "/log/" in path
        return (None, None, "lost", None, None, "500")[next(appends) % 6] if is_append else None

    s3.fault = fault

    assert 4 == run("s3://videos/faults", "-o", "a").exit_code

    s3.reset()
    found = json.loads(runner("status", "s3://videos/faults", "--json").stdout)
    assert (5, 1) == (found["by_status"]["succeeded"], found["by_status"]["uncertain"])
    held = open_store("s3://videos/faults").get("shards/00000/results.jsonl")
    assert Path("a/results.jsonl").read_bytes() == held


def test_a_store_that_replaces_objects_is_refused(folder: Path, s3: FaultyS3) -> None:
    """Nothing is begun where a second process could overwrite what a first one wrote; doctor says it, too."""
    s3.ignores_conditions = True

    refused = run("s3://videos/bad")

    assert (2, True) == (refused.exit_code, "can't hold a journal" in refused.stderr)
    assert not Path("output").exists()
    assert "can't hold a journal" in runner("doctor", "--journal", "s3://videos/bad").stdout
    s3.ignores_conditions = False
    assert "keeps a second process from replacing" in runner("doctor", "--journal", "s3://videos/bad").stdout


def test_credentials_that_are_refused(folder: Path, s3: FaultyS3) -> None:
    """At the start they are named without their values, and nothing was done."""
    s3.fault = lambda method, path: "403"

    refused = run("s3://videos/run")

    assert (3, True) == (refused.exit_code, "refuses the credentials (ExpiredToken" in refused.stderr)
    assert "not-a-secret" not in refused.stderr


@pytest.mark.slow
def test_a_journal_holds_one_run(folder: Path) -> None:
    """Another number of shards, another name, or no URL at all is refused, and a shard has its own log."""
    journal = (folder / "j").as_uri()
    assert run(journal, "--shard", "0/2", "-o", "s0").exit_code in (0, 4)

    for options in (["--shard", "0/3"], [], ["--shard", "0/1"]):
        refused = run(journal, *options, "-o", "other")
        assert (2, True) == (refused.exit_code, "has shards 2, and this would be" in refused.stderr), refused
    refused = run("bucket/run", "-o", "other")
    assert (2, True) == (refused.exit_code, "is not the URL of an object store" in refused.stderr)
    refused = run(journal, "--shard", "1/2", "-o", "s0")
    assert (2, True) == (refused.exit_code, "belongs to shard 0 of the journal" in refused.stderr)
    (folder / "m.yaml").write_text(MANIFEST.replace("kittens", "cats"))
    assert "has run 'kittens'" in run(journal, "--shard", "0/2", "-o", "other").stderr


@pytest.mark.slow
def test_commands_on_a_directory_keep_its_journal(folder: Path) -> None:
    """Resolve and rerun write to the journal, too; a young uncertain job is not given back yet."""
    journal = (folder / "j").as_uri()
    assert 4 == run(journal, "-o", "a").exit_code

    refused = runner("resolve", "a", "job-3", "--not-submitted")
    assert (True, True) == (refused.exit_code != 0, "was to be submitted less than 10" in refused.stderr), (
        refused
    )
    assert 0 == runner("resolve", "a", "job-3", "--give-up").exit_code
    with Store(Path("b"), journal=journal_of(Path("a"))) as store:
        assert "failed" == store.reader.execute("SELECT state FROM jobs WHERE job_id = 'job-3'").fetchone()[0]
        with store.transaction() as connection:
            connection.execute(
                "UPDATE jobs SET state = 'uncertain', error_class = 'uncertain_submit' WHERE job_id = 'job-3'"
            )
            connection.execute("UPDATE attempts SET submitted_at = ?", (time.time() - 700,))
    assert 0 == runner("resolve", "a", "job-3", "--not-submitted").exit_code
    (folder / "j" / "run.json").write_text("[]")
    foreign = runner("resume", "a")
    shutil.rmtree(folder / "j")
    for answer in (foreign, runner("resume", "a")):
        assert (2, True) == (answer.exit_code, "does not hold the journal of a" in answer.stderr)


@pytest.mark.slow
def test_merged_shards_are_closed_for_every_machine(folder: Path) -> None:
    """A merge closes the logs of the shards; a process that still has one, or opens it elsewhere, is fenced."""
    journal = (folder / "j").as_uri()
    for index in range(2):
        assert run(journal, "--shard", f"{index}/2", "-o", f"s{index}").exit_code in (0, 4)

    assert 0 == runner("merge", "all", "s0", "s1").exit_code

    fenced = run(journal, "--shard", "1/2", "-o", "elsewhere")
    assert (3, True) == (fenced.exit_code, "merged into" in fenced.stderr)
    assert 4 == runner("run", "m.yaml", "--simulate", "-o", "all").exit_code
    assert 2 == len([info for info in FolderStore(str(folder / "j")).list() if "/base/" in info.name])
    # A merge that was interrupted after it had closed them continues.
    shutil.rmtree("all")
    assert 0 == runner("merge", "all", "s0", "s1").exit_code


@pytest.mark.slow
def test_a_run_is_read_and_worked_on_by_its_url(folder: Path) -> None:
    """status, jobs, show and report read all shards without disturbing them; resume, resolve and rerun work here."""
    journal = (folder / "j").as_uri()
    for index in range(2):
        assert run(
            journal, "--shard", f"{index}/2", "-o", f"s{index}", "--limit", "2", "--per-shard"
        ).exit_code in (0, 4, 6)
    log = len(FolderStore(str(folder / "j")).list())

    found = json.loads(runner("status", journal, "--json").stdout)

    assert (6, 2) == (found["jobs"], found["by_status"]["pending"])
    assert [] == found["lost_files"]
    assert "job-1" in runner("jobs", journal).stdout
    assert "job-1" in runner("show", journal, "job-1").stdout
    assert 0 == runner("report", journal, "--csv", "all.csv").exit_code
    assert 7 == len((folder / "all.csv").read_text().splitlines())
    assert log == len(FolderStore(str(folder / "j")).list())
    for several in (("resolve", journal, "job-*", "--give-up"), ("rerun", journal)):
        refused = runner(*several)
        assert (2, True) == (refused.exit_code, "this run has 2 shards" in refused.stderr)
    apart = [f"job-{n}" for n in range(1, 7)]
    assert (
        "name those of one at a time: shard 0: job-" in runner("resolve", journal, *apart, "--give-up").stderr
    )
    assert log == len(FolderStore(str(folder / "j")).list())

    assert runner("resume", journal).exit_code in (0, 1, 4)

    dirs = [Path(f"output/kittens-simulated-shard-{index}-of-2") for index in range(2)]
    assert all((each / "results.jsonl").exists() for each in dirs)
    assert "brought up to date" in runner("resume", "s0").stderr
    assert 0 == json.loads(runner("status", journal, "--json").stdout)["by_status"]["pending"]
    assert 0 == runner("resolve", journal, "job-3", "--give-up").exit_code
    assert 0 == runner("rerun", journal, "--job", "job-3", "--dry-run").exit_code


@pytest.mark.slow
def test_a_journal_is_merged_by_its_url(folder: Path) -> None:
    """Its shards become one run, also again after an interruption; their files are fetched from the gateway."""
    journal = (folder / "j").as_uri()
    for index in range(2):
        assert run(journal, "--shard", f"{index}/2", "-o", f"s{index}").exit_code in (0, 4)

    for _ in range(2):
        shutil.rmtree("all", ignore_errors=True)
        merged = runner("merge", "all", journal, "--json")
        assert 0 == merged.exit_code, merged
        assert (6, 5) == (json.loads(merged.stdout)["jobs"], len(json.loads(merged.stdout)["lost_files"]))
    again = runner("merge", "another", journal)
    assert (
        f"error[run-dir]: {journal}/kittens-simulated-shard-0-of-2 was merged into {Path('all').absolute()}"
        in (again.stderr)
    )
    assert 4 == runner("run", "m.yaml", "--simulate", "-o", "all").exit_code
    assert "no journal at" in runner("status", (folder / "nothing").as_uri()).stderr


@pytest.mark.slow
def test_one_shard_is_resolved_by_the_url(folder: Path) -> None:
    """A run without shards is worked on by its URL alone."""
    journal = (folder / "j").as_uri()
    assert 4 == run(journal, "-o", "a").exit_code

    assert 0 == runner("resolve", journal, "job-3", "--give-up").exit_code

    assert "job-3" in runner("jobs", journal, "--status", "failed").stdout
    assert 0 == runner("rerun", journal, "--dry-run").exit_code
    before = sorted((folder / "j").rglob("*"))
    refused = runner("merge", "all", journal)
    assert f"error[usage]: the run in {journal} has no shards" in refused.stderr
    assert before == sorted((folder / "j").rglob("*")), "its owner was fenced"


@pytest.mark.slow
def test_prepared_shards_need_no_manifest(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The jobs and their local files are in the journal: another machine runs its shard by the URL alone, also if one was lost."""
    journal = (folder / "j").as_uri()
    (folder / "frames").mkdir()
    (folder / "frames" / "a.png").write_bytes(png(640, 480))
    manifest = MANIFEST.replace("prompt: 'kitten ${n}'", "prompt: 'cat ${n}', image: ./frames/a.png")
    (folder / "m.yaml").write_text(manifest)
    prepared = runner("prepare", "m.yaml", "--simulate", "--shards", "2", "--journal", journal)
    assert (0, True) == (prepared.exit_code, "1 local file in the journal" in prepared.stderr), prepared
    (folder / "m.yaml").unlink()
    shutil.rmtree(folder / "frames")
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")

    codes = [
        runner("resume", journal, "--shard", f"{index}/2", "--scenario", "../scenario.yaml").exit_code
        for index in range(2)
    ]

    assert [0, 0] == codes
    found = json.loads(runner("status", journal, "--json").stdout)
    assert (6, 6) == (found["jobs"], found["by_status"]["succeeded"])
    (lost,) = folder.rglob("*shard-0-of-2*")
    videos = {path.name: path.read_bytes() for path in (lost / "assets").iterdir()}
    for path in lost.iterdir():
        # The tasks of the simulated gateway are no part of the machine.
        if path.name != "simulator.jsonl":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    fetched = runner("resume", journal, "--shard", "0/2", "--scenario", "../scenario.yaml")
    assert (0, True) == (fetched.exit_code, "was brought up to date from its journal" in fetched.stderr)
    assert videos == {path.name: path.read_bytes() for path in (lost / "assets").iterdir()}
    assert 2 == runner("resume", journal, "--shard", "0/3").exit_code
    (folder / "frames").mkdir()
    (folder / "frames" / "a.png").write_bytes(png(640, 480))
    (folder / "m.yaml").write_text(manifest)
    again = runner("prepare", folder / "m.yaml", "--simulate", "--shards", "2", "--journal", journal)
    assert (0, 2) == (again.exit_code, again.stderr.count("has begun, and was left as it is"))


@pytest.mark.slow
def test_a_prepared_budget_is_divided(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only if told so; each shard spends its part of it, and the ledger is beside the directories of its machine."""
    journal = (folder / "j").as_uri()
    (folder / "m.yaml").write_text(MANIFEST + "budget: {run: 2 USD, unknown: 1 USD}\n")
    command = ("prepare", "m.yaml", "--simulate", "--journal", journal)
    refused = runner(*command, "--shards", "2")
    assert (2, True) == (refused.exit_code, "hint: add --per-shard to divide it" in refused.stderr)
    assert 0 == runner(*command, "--shards", "2", "--per-shard").exit_code
    (folder / "elsewhere" / "output").mkdir(parents=True)
    monkeypatch.chdir(folder / "elsewhere")

    codes = [
        runner("resume", journal, "--shard", f"{index}/2", "--scenario", "../scenario.yaml").exit_code
        for index in range(2)
    ]

    assert [3, 3] == codes
    [total] = json.loads(runner("spend", "--json").stdout)["totals"]
    assert ("USD", "2.00") == (total["currency"], total["spent"])
    monkeypatch.chdir(folder)
    output = Path("elsewhere/output")
    assert 0 == runner("merge", output / "all", *output.glob("*-of-2")).exit_code
    ledger = output / "spend-simulated.db"
    assert [total] == json.loads(runner("spend", ledger, "--json").stdout)["totals"]
    with closing(sqlite3.connect(ledger)) as reader:
        assert [(1,)] == reader.execute("SELECT count(DISTINCT run) FROM entries").fetchall()
    assert [ledger] == list(Path().rglob("spend*.db"))


@pytest.mark.slow
def test_a_journal_from_somebody_else_leads_nowhere(folder: Path) -> None:
    """The name of the run, which becomes that of a directory, stays in its folder."""
    journal = FolderStore(str(folder / "j"))
    assert run((folder / "j").as_uri(), "-o", "a").exit_code == 4
    held = json.loads(journal.get("run.json"))
    journal.put("run.json", json.dumps({**held, "run": "../../stolen"}).encode())

    assert 0 == runner("resolve", (folder / "j").as_uri(), "job-3", "--give-up").exit_code

    assert [] == list(folder.parent.glob("**/stolen"))
    assert 1 == len(list((folder / "output").iterdir()))


def test_a_run_that_is_read_is_named_by_its_url(folder: Path) -> None:
    """What `status` and `jobs` suggest has the URL, not the temporary directory that they read."""
    url = f"file://{folder}/journal"
    run(url, "-o", "a", "--limit", "1")

    shown = runner("status", url)
    listed = runner("jobs", url)

    assert f"continue with: runner resume {url}" in shown.stdout
    assert f"runner show {url} JOB" in listed.stderr


@pytest.mark.parametrize("scheme", ["file", "s3", "http"])
@pytest.mark.parametrize("command", ["status", "resume", "jobs"])
def test_a_password_in_a_url_is_not_shown(command: str, scheme: str) -> None:
    """Also where the command would name the argument as a directory that does not exist."""
    result = runner(command, f"{scheme}://user:hunter2@host/run")

    assert (2, False) == (result.exit_code, "hunter2" in result.stdout + result.stderr)
    assert "a URL with a user and a password" in result.stderr
