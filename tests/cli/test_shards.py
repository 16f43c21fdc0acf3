"""`runner run --shard` and `runner merge`: together they are a run without shards, and no job is in two of them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec.structs import replace

from runner.api.merge import merge
from runner.api.options import RunOptions
from runner.api.run_facts import known_run
from runner.api.shards import check_shard_options
from runner.api.state_dir import remember, runs_elsewhere
from runner.core.lifecycle import State
from runner.core.money import parse_money
from runner.core.settings import Budget, Settings
from runner.core.sharding import Shard
from runner.errors import RunDirError, RunLocked, UsageError
from runner.store.database import connect_reader
from runner.store.files import Upload, UploadState, read_uploads
from runner.store.lock import RunLock
from runner.store.store import Store
from tests.acceptance.simulator_process import command_line
from tests.api.rundir import make_run, write_manifest
from tests.cli.command import CommandResult, runner

EXAMPLES = Path(__file__).parents[2] / "manifests" / "shards"
MANIFEST = """
version: 1
name: kittens
limits: {in_flight: 8}
jobs:
  - id: job-${n}
    repeat: 9
    request: {model: seedance-1-0-pro-250528, prompt: 'kitten ${n}', seconds: 4, size: 480p}
  - id: bad
    request: {model: seedance-1-0-pro-250528, prompt: kitten 0, seconds: 99}
"""
SCENARIO = """
version: 1
generate_s: [0.05, 0.1]
rules: [{name: refused, match: {prompt: 'kitten 3'}, task: {end: failed, message: no}}]
"""
_OF_ONE_RUN = ("submitted_at", "finished_at", "generate_s", "download_s", "polls", "task_id")
"""What two runs of one job do not have in common: times, and the simulator's tasks."""


def run(*options: object) -> CommandResult:
    """Run the manifest with the simulator, without its invalid job."""
    return runner("run", "m.yaml", "--simulate", "--scenario", "scenario.yaml", "--skip-invalid", *options)


def lines(run_dir: Path) -> Iterator[dict[str, Any]]:
    """Read the results of a run without what depends on the time."""
    for text in (run_dir / "results.jsonl").read_text().splitlines():
        line = json.loads(text)
        for part in (line, *line["attempts"]):
            for name in _OF_ONE_RUN:
                part.pop(name, None)
        yield line


def save_uploads(run_dir: str, *uploads: Upload) -> None:
    """Let a run have uploaded files."""
    with Store(Path(run_dir)) as store, store.transaction() as connection:
        rows = [(each.digest, each.target, each.state, each.address, each.expires_at) for each in uploads]
        connection.executemany("INSERT INTO uploads VALUES (?, ?, ?, ?, ?)", rows)


@pytest.mark.slow
def test_what_shards_uploaded_is_not_uploaded_again(folder: Path) -> None:
    """Merged shards know the files that any of them uploaded; of one file, the upload that remains longest."""
    for index in range(2):
        run("--shard", f"{index}/2", "-o", f"s{index}")
    ready, unknown = Upload("a", "t", UploadState.READY, "x", 5.0), Upload("b", "t", UploadState.STARTED)
    longer, stays = replace(ready, expires_at=9.0), replace(unknown, state=UploadState.READY, address="y")
    save_uploads("s0", longer, unknown, Upload("c", "t", UploadState.READY, "z"))
    save_uploads("s1", ready, stays, Upload("c", "t", UploadState.STARTED))

    runner("merge", "all", "s0", "s1")

    with closing(connect_reader(Path("all"))) as reader:
        found = read_uploads(reader, "t")
    assert {"a": longer, "b": stays, "c": Upload("c", "t", UploadState.READY, "z")} == found


@pytest.mark.slow
def test_merged_shards_are_the_run(folder: Path) -> None:
    """Three shards, merged, have the lines of a run without shards in its order, and leave nothing to do."""
    done = [run("--shard", f"{index}/3", "-o", f"s{index}") for index in range(3)]
    codes = [each.exit_code for each in done]
    assert all("add --journal URL" in each.stderr for each in done)
    assert 1 == run("-o", "whole").exit_code

    merged = runner("merge", "all", "s2", "s0", "s1", "--json")

    assert {0, 1} >= set(codes)
    assert {"run_dir": "all", "jobs": 10, "missing_shards": [], "lost_files": []} == json.loads(merged.stdout)
    assert list(lines(Path("whole"))) == list(lines(Path("all")))
    assert 9 > len(list(lines(Path("s0")))) > 0
    assert Path("all/assets/job-1.mp4").exists()
    before = Path("all/results.jsonl").read_bytes()
    again = run("-o", "all")
    assert (1, False) == (again.exit_code, "pending" in again.stderr)
    assert before == Path("all/results.jsonl").read_bytes()
    closed = run("--shard", "0/3", "-o", "s0")
    assert (2, True) == (closed.exit_code, "s0 was merged into" in closed.stderr)


@pytest.mark.slow
def test_a_directory_goes_on_as_the_shard_that_it_is(folder: Path) -> None:
    """Another index, another number or no shard at all is refused, and so is a shard where the whole run is."""
    assert run("--shard", "1/3", "-o", "s1").exit_code in (0, 1)
    assert {"run": "kittens", "shard": 1, "shards": 3, "share": "blake2b8"}.items() <= json.loads(
        Path("s1/run.json").read_text()
    ).items()

    for options in (["--shard", "0/3"], ["--shard", "1/4"], []):
        refused = run(*options, "-o", "s1")
        assert (2, True) == (refused.exit_code, "s1 holds shard 1/3 of its run" in refused.stderr)
    assert run("--shard", "1/3", "-o", "s1").exit_code in (0, 1)
    write_manifest(Path("m.yaml"), "1")
    assert 0 == run("-o", "whole").exit_code
    assert 2 == run("--shard", "0/2", "-o", "whole").exit_code


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shard", "3/3"], "none of 3 shards: they are counted from 0 to 2"),
        (["--shard", "0/9"], "limits.in_flight 8 can't be shared by 9 shards"),
        (["--shard", "0/4", "--in-flight", "3"], "limits.in_flight 3 can't be shared by 4 shards"),
        (["--shard", "0/3", "--limit", "2"], "--limit can't be counted over all shards"),
        (["--shard", "0/3", "--sample", "2"], "--sample can't be counted over all shards"),
        (["--shard", "0/3", "--max-failures", "5%"], "--max-failures can't be counted over all shards"),
        (["--per-shard"], "--per-shard needs --shard"),
        (["--shard", "auto"], "no scheduler's variables are set"),
    ],
)
def test_what_a_shard_refuses(options: list[str], message: str, folder: Path) -> None:
    """Nothing is done, and the message says what to change."""
    refused = run(*options)

    assert (2, True) == (refused.exit_code, message in refused.stderr.replace("\n", " "))
    assert not Path("output").exists()


def test_a_budget_is_not_multiplied() -> None:
    """Each shard would spend all of it; it may be meant so."""
    settings = Settings(name="kittens", budget=Budget(run=parse_money("50 USD")))

    with pytest.raises(UsageError, match="budget can't be counted over all shards"):
        check_shard_options(RunOptions(shard=Shard(0, 3)), settings)
    check_shard_options(RunOptions(shard=Shard(0, 3), per_shard=True), settings)
    check_shard_options(RunOptions(shard=Shard(0, 1)), settings)


def test_a_plan_is_of_the_shard(folder: Path) -> None:
    """What a dry run shows is what the shard would do, with its part of the limits and in its directory."""
    write_manifest(Path("m.yaml"), *map(str, range(9)))
    planned = [run("--shard", f"{index}/3", "--dry-run", "--json") for index in range(3)]

    assert 9 == sum(json.loads(each.stdout)["new"] for each in planned)
    shown = run("--shard", "0/3", "--dry-run")
    assert "kittens-simulated-shard-0-of-3" in shown.stdout + shown.stderr


@pytest.mark.slow
def test_counts_are_allowed_for_each_shard(folder: Path) -> None:
    """With --per-shard a limit holds in the shard alone; `off` counts nothing and needs no permission."""
    limited = run("--shard", "0/3", "--limit", "1", "--per-shard", "-o", "s0")

    assert 6 == limited.exit_code
    assert run("--shard", "0/3", "--max-failures", "off", "-o", "s0").exit_code in (0, 1)


@pytest.mark.slow
def test_a_canary_is_each_shards_own(folder: Path) -> None:
    """No shard begins without one: where its first job fails it stops, and has submitted no other."""
    Path("m.yaml").write_text(MANIFEST + "canary: {jobs: 1}\n")
    Path("scenario.yaml").write_text(SCENARIO.replace("kitten 3", "kitten *"))

    done = [run("--shard", f"{index}/2", "-o", f"s{index}") for index in range(2)]

    assert [3, 3] == [each.exit_code for each in done]
    for index in range(2):
        attempts = [len(line["attempts"]) for line in lines(Path(f"s{index}"))]
        assert 1 == sum(attempts)


def test_another_number_of_shards_is_a_second_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On one machine it is noticed: the shards of one number are one run, those of another would pay again."""
    monkeypatch.setenv("POWERTOKENS_API_KEY", "sk-0123456789abcdef")
    remember(Path("m.yaml"), known_run(Path("s0"), "kittens", None, Shard(0, 2)))

    for options in (["--shard", "0/4", "-o", "other"], ["--shard", "0/2", "-o", "other"], ["-o", "whole"]):
        refused = runner("run", "m.yaml", *options)
        assert (2, True) == (refused.exit_code, "s0, which has been moved" in refused.stderr), refused
    assert () == runs_elsewhere(Path("m.yaml"), known_run(Path("s1"), "kittens", None, Shard(1, 2)))


@pytest.mark.slow
def test_merge_names_what_does_not_belong_together(folder: Path) -> None:
    """A missing shard, one shard twice, another number of shards with the jobs that are in both, no shard at all."""
    for shard, name in (("0/3", "a"), ("0/3", "b"), ("1/3", "c"), ("0/1", "d")):
        assert run("--shard", shard, "-o", name).exit_code in (0, 1)
    make_run(
        folder / "whole", write_manifest(folder / "other.yaml", "1"), {"1": State.PENDING}, simulate=True
    )

    for dirs, message in (
        (["a", "c"], "1 shard of 3 missing: 2/3"),
        (["a", "b", "c"], "a and b are both shard 0/3; jobs that both have: '"),
        (["a", "d"], "has a number of shards of 1; jobs that both have: '"),
        (["whole"], "whole is not a shard of a run"),
        (["nothing"], "the run directory nothing does not exist"),
    ):
        refused = runner("merge", "all", *(folder / name for name in dirs))
        assert (2, True) == (refused.exit_code, message in refused.stderr.replace(f"{folder}/", "")), refused
    # Nothing was closed by a merge that was refused.
    assert run("--shard", "0/3", "-o", "a").exit_code in (0, 1)


@pytest.mark.slow
def test_a_partial_merge_takes_in_no_manifest(folder: Path) -> None:
    """The jobs that are elsewhere would be paid for again; what is in it continues."""
    assert run("--shard", "0/3", "-o", "s0").exit_code in (0, 1)
    Path("s0/assets").rename("elsewhere")

    merged = runner("merge", "some", "s0", "--partial")

    assert (0, True) == (merged.exit_code, "download again with runner resume some --verify" in merged.stderr)
    refused = run("-o", "some")
    assert (2, True) == (refused.exit_code, "was merged from some shards only" in refused.stderr)
    assert runner("resume", "some").exit_code in (0, 1)


@pytest.mark.slow
@pytest.mark.parametrize("merged", ["s0", "copy"])
def test_a_copy_of_a_merged_shard_is_not_merged_too(merged: str, folder: Path) -> None:
    """Of a shard and its copy the one that is merged is the run."""
    run("--shard", "0/1", "-o", "s0", "--limit", "1", "--per-shard")
    shutil.copytree("s0", "copy")
    other = {"s0": "copy", "copy": "s0"}[merged]
    assert 0 == runner("merge", "all", merged).exit_code

    refused = runner("merge", "second", other)

    assert (2, True) == (
        refused.exit_code,
        f"the same run continues in {folder / merged}" in refused.stderr,
    ), refused.stderr


@pytest.mark.slow
def test_an_interrupted_merge_begins_anew(folder: Path) -> None:
    """After a crash the shards are closed, and the same merge continues; another place is refused once it is whole."""
    assert run("--shard", "0/1", "-o", "s0").exit_code == 1
    with Store(Path("s0")) as store, store.transaction() as connection:
        connection.execute("INSERT INTO meta VALUES ('retired', ?)", (str(folder / "all"),))
    (folder / ".all.merging").mkdir()
    with pytest.raises(RunDirError, match="was merged into"), Store(Path("s0")):
        pass

    assert 0 == runner("merge", "all", "s0").exit_code
    refused = runner("merge", "second", "s0")
    assert (2, True) == (refused.exit_code, "s0 was merged into" in refused.stderr)
    assert 2 == runner("merge", "all", "s0").exit_code


def test_the_directory_of_a_merge_that_was_killed_has_another_run(folder: Path) -> None:
    """Its shards are merged into another one: nothing of them is in the first."""
    run("--shard", "0/1", "-o", "s0", "--limit", "0")
    with Store(Path("s0")) as store, store.transaction() as connection:
        connection.execute("INSERT INTO meta VALUES ('retired', ?)", (str(folder / "all"),))
    make_run(Path("all"), write_manifest(Path("other.yaml"), "a"), {"a": State.SUCCEEDED})

    assert 2 == runner("merge", "all", "s0").exit_code
    assert 0 == runner("merge", "second", "s0").exit_code
    assert 10 == len(list(lines(Path("second"))))


@pytest.mark.parametrize(("second", "kept"), [("all", "all"), ("other", "other")])
def test_two_merges_at_once(second: str, kept: str, folder: Path) -> None:
    """Into one directory the second is refused; of two directories, the one that was asked for last becomes the run."""
    run("--shard", "0/1", "-o", "s0", "--limit", "0")
    sources = [Path("s0")]
    told: list[str] = []

    def begin(text: str) -> None:
        told.append(text)
        if len(told) == 1:
            with pytest.raises(RunLocked) if second == "all" else nullcontext():
                merge(Path(second), sources)

    with nullcontext() if second == "all" else pytest.raises(RunDirError, match="s0 is being merged into"):
        merge(Path("all"), sources, on_progress=begin)

    assert 10 == len(list(lines(Path(kept))))
    assert {kept, "s0"} == {path.name for path in folder.iterdir() if (path / "run.db").exists()}


def test_merge_of_a_shard_in_use(folder: Path) -> None:
    """The hint is about the shard, not about another merge."""
    run("--shard", "0/1", "-o", "s0", "--limit", "0")

    with RunLock(Path("s0")), pytest.raises(RunLocked) as caught:
        merge(Path("all"), [Path("s0")])

    assert "runner status" in (caught.value.hint or "")


def _shim(folder: Path) -> dict[str, str]:
    """Put a command `runner` on the path, which runs a simulation; return the environment."""
    command, environ = command_line()
    (folder / "bin").mkdir()
    shim = folder / "bin" / "runner"
    shim.write_text(
        f'#!/bin/sh\nexec {" ".join(command)} "$@" --simulate --scenario scenario.yaml --skip-invalid\n'
    )
    shim.chmod(0o755)
    return {**environ, "PATH": f"{folder / 'bin'}:{environ['PATH']}", "HOME": str(folder)}


@pytest.mark.slow
def test_the_kubernetes_example(folder: Path) -> None:
    """What each pod executes runs its shard, and the number of shards is that of the pods."""
    job = yaml.safe_load((EXAMPLES / "kubernetes-job.yaml").read_text())["spec"]
    (container,) = job["template"]["spec"]["containers"]
    given = {each["name"]: each["value"] for each in container["env"]}
    command = [
        text.replace("/manifests/kittens", "m").replace("/videos", "v") for text in container["command"]
    ]
    environ = {**_shim(folder), **given, "JOB_COMPLETION_INDEX": "2", "JOURNAL": (folder / "j").as_uri()}

    done = subprocess.run(command, env=environ, timeout=60, capture_output=True, text=True, check=False)

    assert done.returncode in (0, 1), done.stderr
    assert {"shard": 2, "shards": job["completions"]}.items() <= json.loads(
        Path("v/shard-2/run.json").read_text()
    ).items()
    assert list((folder / "j" / "shards" / "00002" / "log").iterdir())
    assert "Indexed" == job["completionMode"]
    assert job["completions"] == job["parallelism"] == int(given["RUNNER_SHARDS"])


@pytest.mark.slow
def test_the_slurm_example(folder: Path) -> None:
    """The script runs its task's shard, also if only that task is submitted again."""
    script = (EXAMPLES / "slurm.sh").read_text()
    assert "#SBATCH --array=0-3\n" in script
    environ = {**_shim(folder), "SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "1"}
    (folder / "kittens.yaml").write_text(MANIFEST)

    done = subprocess.run(
        ["bash", EXAMPLES / "slurm.sh"], env=environ, timeout=60, capture_output=True, text=True, check=False
    )

    assert done.returncode in (0, 1), done.stderr
    held = json.loads((folder / "kittens" / "shard-3" / "run.json").read_text())
    assert Shard(3, 4) == Shard(held["shard"], held["shards"])
