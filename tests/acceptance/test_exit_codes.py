"""Every exit code of a run, from a real process against a gateway in another process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.simulator_process import run_simulator, runner

MANIFEST = """
version: 1
name: codes
gateway: {{base_url: '{base_url}'}}
limits: {{submit: 100/s, poll: 200/s, in_flight: 20}}
poll: {{first: 50ms, interval: 50ms, max_interval: 100ms, timeout: 2s}}
timeouts: {{submit: 1s}}
retry: {{attempts: 2, base: 50ms, cap: 100ms}}
jobs:
  - id: job-${{n}}
    repeat: 3
    request: {{model: seedance-1-0-pro-250528, prompt: 'kitten ${{n}}', seconds: 4, size: 480p}}
"""

RULE = "  - {{name: it, match: {{prompt: 'kitten 2'}}, {what}}}\n"


def run_with(folder: Path, rule: str | None, *options: str | Path) -> tuple[int, int]:
    """Run the manifest twice with one rule for its second job, and return both exit codes."""
    scenario = "version: 1\ngenerate_s: [0.1, 0.2]\n"
    if rule is not None:
        scenario += "rules:\n" + RULE.format(what=rule)
    with run_simulator(folder, scenario) as simulator:
        manifest = folder / "codes.yaml"
        manifest.write_text(MANIFEST.format(base_url=simulator.base_url), encoding="utf-8")
        arguments = ("run", manifest, "-o", folder / "out", *options)
        first, second = runner(*arguments), runner(*arguments)
    assert "Traceback" not in first.stderr + second.stderr
    return first.returncode, second.returncode


@pytest.mark.parametrize(
    ("rule", "options", "codes"),
    [
        (None, (), (0, 0)),
        ("task: {end: failed}", (), (1, 1)),
        ("task: {end: never}", (), (1, 1)),
        ("submit: {fault: payment_required, times: always}", (), (3, 3)),
        ("submit: {fault: unauthorized, times: always}", (), (3, 3)),
        ("task: {end: failed}", ("--max-failures", "0"), (3, 1)),
        ("submit: {fault: reset, created: true}", (), (4, 4)),
        (None, ("--max-runtime", "0s"), (6, 6)),
    ],
    ids=["all", "failed", "timed out", "quota", "key", "too many failures", "uncertain", "time is up"],
)
def test_exit_code_tells_the_state_of_the_run(
    rule: str | None, options: tuple[str, ...], codes: tuple[int, int], tmp_path: Path
) -> None:
    """
    The code describes the run, and the same command again returns the same code if nothing has changed.
    """
    assert codes == run_with(tmp_path, rule, *options)


def test_exit_code_of_a_run_that_can_not_start(tmp_path: Path) -> None:
    """
    2 for a command, a manifest or a directory that can't be used, and if no key is set; nothing is sent.
    """
    manifest = tmp_path / "m.yaml"
    manifest.write_text(MANIFEST.format(base_url="http://127.0.0.1:9"), encoding="utf-8")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "results.jsonl").write_text("{}\n")
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("version: 1\njobs:\n  - {id: a, request: {model: nothing-like-it}}\n")

    for arguments in (
        ("run",),
        ("run", manifest, "--limit", "many"),
        ("run", tmp_path / "absent.yaml"),
        ("run", wrong),
        ("run", manifest, "-o", tmp_path / "results"),
        ("resume", tmp_path / "absent"),
        ("rerun", tmp_path / "absent.jsonl"),
    ):
        done = runner(*arguments)
        assert (2, "") == (done.returncode, done.stdout), arguments
        assert any(line.startswith("error[") for line in done.stderr.splitlines()), arguments
    assert 2 == runner("run", manifest, POWERTOKENS_API_KEY="").returncode


@pytest.mark.parametrize(("if_locked", "exit_code"), [("fail", 5), ("skip", 0)])
def test_exit_code_of_a_directory_in_use(if_locked: str, exit_code: int, tmp_path: Path) -> None:
    """
    5 if another process uses the directory, or 0 with `--if-locked skip`.
    """
    script = (
        "import sys; from pathlib import Path; from runner.store.store import Store\n"
        "with Store(Path(sys.argv[1])): print('open', flush=True); sys.stdin.read()"
    )
    manifest = tmp_path / "m.yaml"
    manifest.write_text(MANIFEST.format(base_url="http://127.0.0.1:9"), encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "out")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert b"open\n" == holder.stdout.readline()
        done = runner("run", manifest, "-o", tmp_path / "out", "--if-locked", if_locked)
        holder.communicate()

    assert exit_code == done.returncode
    assert f"in use by pid {holder.pid}" in done.stderr
