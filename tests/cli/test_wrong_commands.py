"""Every kind of wrong command line: exit code 2, and one message that says what is wrong, where, and what to do."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.cli.command import runner

MANIFEST = """version: 1
name: kittens
vars: {style: cinematic}
jobs:
  - {id: 'kitten-${n}', repeat: 3, request: {model: seedance-1-0-pro-250528, prompt: '${style} ${n}'}}
"""

WRONG = {
    # Commands, options and arguments.
    "rnu m.yaml": "No such command 'rnu'. Did you mean 'run'?",
    "stat": "Did you mean 'status'?",
    "resove out": "Did you mean 'resolve'?",
    "modles": "Did you mean 'models'?",
    "run": "Missing argument 'MANIFEST'",
    "validate": "Missing argument 'MANIFEST...'",
    "show out": "Missing argument 'JOB'",
    "run m.yaml more.yaml": "unexpected extra argument (more.yaml)",
    "run m.yaml --simulat": "No such option '--simulat'; did you mean '--simulate'?",
    "run m.yaml --limt 3": "No such option '--limt'; did you mean '--limit'?",
    "plan m.yaml --foo": "No such option '--foo'.",
    "report out --csv": "'--csv' requires an argument",
    "run m.yaml --scenario demo": "--scenario and --real-time need --simulate",
    "resolve out kitten-1 --task-id x --give-up": "exactly one of --task-id, --not-submitted, --give-up and --from",
    # Values of options.
    "run m.yaml --limit x": "'--limit': 'x' is not a whole number",
    "run m.yaml --limit -1": "'--limit': -1 is not in the range x>=0",
    "plan m.yaml --show x": "'--show': 'x' is not a whole number",
    "simulate --port 99999": "'--port': 99999 is not in the range",
    "run m.yaml --submit-rate 60": "'60' has no unit; write a number and /s, /min or /h",
    "run m.yaml --max-runtime 1hour": "'hour' in '1hour' is not a unit of a duration",
    "run m.yaml --max-runtime tomorrow": "'tomorrow' is not a duration; write a number and ms, s, m, h or d",
    "run m.yaml --stop-at 25:00": "'25:00' is not a time of day; write a local time as HH:MM",
    "run m.yaml --max-failures many": "write a number of jobs such as 20, a percentage such as 5%, or off",
    "run m.yaml --max-cost lots": "write a number and a currency, such as 50 USD",
    "resume out out --max-cost 1": "--limit and --max-cost can't be used with several directories",
    "run m.yaml --on-changed rerum": "'rerum' is not one of 'error', 'keep', 'rerun'",
    "run m.yaml --if-locked wiat": "'wiat' is not one of 'fail', 'wait', 'skip'",
    "validate m.yaml --format jsn": "'jsn' is not one of 'text', 'json', 'github'",
    "export out --format webdataset": "Name the directory OUT for the dataset too: out is the only argument.",
    "export out d --format webdatset": "'webdatset' is not one of 'videofolder', 'webdataset', 'parquet'",
    "run m.yaml --var a": "'a' is not NAME=VALUE",
    "run m.yaml --simulate --var stile=x": "did you mean 'style'?",
    "run m.yaml --simulate --var style=\udcff": r"--var 'style': '\udcff' is not a character: the value is not UTF-8",
    "jobs out --where promt=*kitten*": "no job has 'promt'; did you mean 'prompt'?",
    "run m.yaml --where split": "'split' is not a condition: write NAME=VALUE",
    "run m.yaml --shard 3/2": "'3/2' is none of 2 shards: they are counted from 0 to 1",
    "run m.yaml --simulate --scenario mixd": "give a file, or one of: demo, mixed",
    "run m.yaml --simulate --env-file absent.env": "absent.env can't be read",
    "run m.yaml --simulate --log-file absent/log": "absent/log can't be written",
    "rerun out --status faild": "did you mean 'failed'?",
    "rerun out --class moderatoin": "did you mean 'moderation'?",
    "spend --by modle": "'modle' is not one of model, day, run and tag:KEY",
    "spend --since yesterday": "'yesterday' is not a day; write it as 2026-11-26",
    # Files and directories that are missing, or others than they should be.
    "run m.yml": "m.yml: can't be read: No such file or directory; did you mean 'm.yaml'?",
    "validate kitens.yaml": "can't be read: No such file or directory",
    "run t.csv": "this is a table, not a manifest; name it in the 'from' of a job: {from: t.csv, ...}",
    "run out": "this is a run directory, not a manifest; to continue it: runner resume out",
    "plan out/results.jsonl": "this is a results file, not a manifest; to run what did not succeed: runner rerun out/results.jsonl",
    "validate out/results.jsonl": "this is a results file, not a manifest",
    "run .": "this is a directory, not a manifest",
    "resume m.yaml": "m.yaml is a file, not a run directory",
    "status m.yaml": "m.yaml is a file, not a run directory",
    "resume absent": "the run directory absent does not exist",
    "report .": ". is not a run directory: it has no run.db",
    "status kept": "name a run directory, such as output/kept",
    "rerun m.yaml": "run it: runner run m.yaml",
    "rerun out/report.html": "rerun its results: runner rerun out/results.jsonl",
    "rerun t.jsonl": "t.jsonl:1 has no 'schema_version'; it is not a result line",
    "spend absent.db": "there is no ledger at absent.db",
    "init m.yaml": "m.yaml exists, and was left as it is",
    "resolve out --from t.csv": "line 1 has the columns job,task; the header is job_id,task_id",
    # Names of jobs, models and schemas.
    "show out kiten-1": "did you mean 'kitten-1'?",
    "run m.yaml --simulate -o out --job typo": "the ids are such as 'kitten-1'",
    "resolve out kitten-99 --give-up": "kitten-99 matches no uncertain job",
    "models wan2.7-i2w": "did you mean 'wan2.7-i2v'?",
    "schema mnifest": "did you mean 'manifest'?",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with a manifest, its finished run, and files of other kinds."""
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "m.yaml").write_text(MANIFEST)
    (folder / "t.csv").write_text("job,task\nkitten-1,task_x\n")
    (folder / "t.jsonl").write_text('{"a": 1}\n')
    (folder / "output" / "kept").mkdir(parents=True)
    (folder / "output" / "kept" / "run.db").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert 0 == runner("run", "m.yaml", "--simulate", "-o", "out", "-q").exit_code
    return folder


@pytest.mark.parametrize("line", WRONG)
def test_wrong_command_lines(line: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No traceback, no second error, nothing sent, and the words that lead on."""
    monkeypatch.chdir(folder)

    done = runner(*shlex.split(line))

    said = done.stderr + done.stdout
    assert 2 == done.exit_code, said
    assert WRONG[line] in said
    assert "Traceback" not in said
    assert done.stderr.count("error[") <= 1
    assert len(said.splitlines()) <= 6, said
