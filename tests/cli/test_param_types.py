"""Shell completion: commands, run directories, job ids, models, classes, states."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from runner.cli.main import cli
from runner.cli.param_types import FAILURE_CLASS, JOB, MAX_OFFERED, RUN_DIR, STATE
from tests.api.rundir import make_run, write_manifest
from tests.cli.command import runner


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _offered(*words: str, command: click.Command = cli) -> list[str]:
    """Complete the last word."""
    complete = ShellComplete(command, {}, "runner", "_RUNNER_COMPLETE")
    return [item.value for item in complete.get_completions(list(words[:-1]), words[-1])]


@click.command()
@click.argument("run_dir", type=RUN_DIR)
@click.option("--job", type=JOB)
@click.option("--class", "classes", type=FAILURE_CLASS)
@click.option("--status", type=STATE)
def _command(run_dir: Path, job: str, classes: str, status: str) -> None:
    """A command with the types of the commands that select jobs of a run."""


def test_commands() -> None:
    """The first word is completed to a command."""
    assert ["plan"] == _offered("pl")


def test_models_and_schemas() -> None:
    """The names of models and schemas are offered."""
    assert ["wan2.7-i2v", "wan2.7-r2v", "wan2.7-t2v"] == _offered("models", "wan2.7")
    assert "manifest" in _offered("schema", "man")


def test_run_directories() -> None:
    """A run directory is offered without a slash, any other directory with one."""
    make_run(Path("output/kittens"), write_manifest(Path("m.yaml"), "a"), {})
    Path("output/kitchen").mkdir()

    assert ["output/"] == _offered("status", "")
    assert ["output/kitchen/", "output/kittens"] == _offered("status", "output/kit")


def test_scenarios() -> None:
    """The shipped scenarios, YAML files and directories are offered."""
    Path("mine.yaml").touch()
    Path("mine.txt").touch()

    assert ["demo", "mixed", "mine.yaml"] == _offered("run", "--scenario", "")
    assert ["mixed", "mine.yaml"] == _offered("simulate", "--scenario", "mi")


def test_manifests() -> None:
    """Only files that may be manifests are offered."""
    for name in ("a.yaml", "b.jsonl", "c.txt", ".hidden.yaml"):
        Path(name).touch()

    assert ["a.yaml", "b.jsonl"] == _offered("validate", "")


def test_job_ids_of_the_given_run() -> None:
    """Ids that begin with the text are offered, whatever characters they contain, up to a limit."""
    ids = ["sky*", "sky[1]", "grass", *(f"many-{n}" for n in range(MAX_OFFERED + 20))]
    make_run(Path("out"), write_manifest(Path("m.yaml"), *(f'"{one}"' for one in ids)), {})

    assert ["sky*", "sky[1]"] == _offered("out", "--job", "sky", command=_command)
    assert MAX_OFFERED == len(_offered("out", "--job", "many", command=_command))


def test_errors_offer_nothing() -> None:
    """A missing or damaged run directory prints nothing, because a shell would show it."""
    Path("damaged").mkdir()
    Path("damaged/run.db").write_bytes(b"not a database at all")

    assert [] == _offered("nowhere", "--job", "", command=_command)
    assert [] == _offered("damaged", "--job", "", command=_command)
    assert [] == _offered("status", "nowhere/deep/")


def test_classes_and_states() -> None:
    """The failure classes and states of the results are offered."""
    assert ["remote_failed", "remote_cancelled", "remote_expired"] == _offered(
        "out", "--class", "remote", command=_command
    )
    assert ["submitting", "submitted"] == _offered("out", "--status", "sub", command=_command)


def test_an_unknown_word_gets_the_nearest() -> None:
    """A word that is not in the list is an error that suggests the nearest one."""
    with pytest.raises(click.BadParameter, match="did you mean 'moderation'"):
        FAILURE_CLASS.convert("moderaton", None, None)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(shell: str) -> None:
    """The documented line prints a script for the shell."""
    variable = f"_RUNNER_COMPLETE={shell}_source"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])} | dict([variable.split("=")])

    script = subprocess.run(
        [sys.executable, "-m", "runner"], env=environment, capture_output=True, text=True, check=False
    )

    assert (0, "") == (script.returncode, script.stderr)
    assert f"_RUNNER_COMPLETE={shell}_complete" in script.stdout
    assert variable in runner("--help").stdout
