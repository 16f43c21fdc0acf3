"""The manifests that come with the program: each can be run, and follows the API's documents."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
import subprocess
from datetime import date
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from runner.api.options import RunOptions
from runner.api.run import run
from runner.api.validate import check
from runner.cli.main import cli
from runner.core.lifecycle import State
from runner.manifest.loader import load
from runner.results.reader import open_results

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests"
NIGHTLY = MANIFESTS / "nightly"
RUNNABLE = [*sorted(MANIFESTS.glob("*.yaml")), NIGHTLY / "nightly.yaml"]
EXAMPLES = ROOT / "tests" / "schema" / "examples"
QUICK = RunOptions(simulate=True, scenario=str(Path(__file__).with_name("quick.yaml")))
_DAY, _NEXT_DAY = date(2026, 11, 21), date(2026, 11, 22)


def _yaml(name: str) -> Any:
    return yaml.safe_load((NIGHTLY / name).read_text())


@pytest.mark.slow
@pytest.mark.parametrize("path", RUNNABLE, ids=lambda path: path.stem)
async def test_it_runs_against_the_simulator(path: Path, tmp_path: Path) -> None:
    """Every job ends with a video, and the exit code says so; but for the one whose budget is too small."""
    result = await run(path, output=tmp_path / "out", options=QUICK)

    ends_early = path.stem == "budget"
    assert (3 if ends_early else 0) == result.exit_code
    results = list(open_results(tmp_path / "out" / "results.jsonl"))
    assert {State.SUCCEEDED, *([State.PENDING] if ends_early else [])} == {
        line.record.state for line in results
    }
    for line in results:
        assert all((tmp_path / "out" / asset.path).is_file() for asset in line.record.assets)


@pytest.mark.parametrize("path", RUNNABLE, ids=lambda path: path.stem)
def test_editors_find_its_schema(path: Path) -> None:
    """The first line is the path to the schema, relative to the manifest."""
    first = path.read_text().splitlines()[0]
    prefix = "# yaml-language-server: $schema="

    assert first.startswith(prefix)
    assert (ROOT / "schemas" / "manifest.schema.json").samefile(path.parent / first.removeprefix(prefix))


def test_demo_shows_everything() -> None:
    """It has all families of models, a matrix, rows and a last frame, in about a dozen jobs."""
    demo = load(MANIFESTS / "demo.yaml", _refuse, variables={}, today=_DAY)
    specs = list(demo.jobs(_refuse))

    assert 10 <= len(specs) <= 15
    assert {"first-frame-video", "seedance-1", "wan-kf2v", "wan2.7-i2v", "wan2.7-r2v"} == {
        spec.schema for spec in specs
    }
    assert any(spec.request.get("return_last_frame") for spec in specs)
    assert any(spec.source.file.endswith("prompts.csv") for spec in specs)


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.json")), ids=lambda path: path.stem)
def test_each_document_has_a_manifest_with_its_own_example(example: Path) -> None:
    """Some manifest sends exactly the document's example request."""
    request = json.loads(example.read_text())
    requests = []
    for path in MANIFESTS.glob("*.yaml"):
        loaded = load(path, lambda _problem: None, variables={}, today=_DAY)
        requests += [spec.request for spec in loaded.jobs(lambda _problem: None)]

    assert request in requests


def test_nightly_run_is_named_by_its_date() -> None:
    """Another night has another directory and other jobs, so none of them counts as done."""
    nights = [load(NIGHTLY / "nightly.yaml", _refuse, variables={}, today=day) for day in (_DAY, _NEXT_DAY)]
    first, second = ({spec.job_id for spec in night.jobs(_refuse)} for night in nights)

    assert ["nightly-2026-11-21", "nightly-2026-11-22"] == [night.header.name for night in nights]
    assert not first & second


def test_nightly_variables_can_be_overridden() -> None:
    """`--var` replaces a value of `vars`: one that the model does not allow is refused."""
    assert not check([NIGHTLY / "nightly.yaml"], variables={"length": "13"}).is_valid


_FIELD = r"(\*|[0-9]+(-[0-9]+)?)(/[0-9]+)?(,[0-9]+(-[0-9]+)?)*"
_CRON_LINE = re.compile(rf"(?:{_FIELD}\s+){{5}}\S.*")


def test_crontab() -> None:
    """Each line is a comment, a variable, or five fields and a command."""
    lines = (NIGHTLY / "crontab").read_text().splitlines()
    jobs = [line for line in lines if line and not re.match(r"#|[A-Z_]+=", line)]

    assert 1 == len(jobs)
    assert _CRON_LINE.fullmatch(jobs[0])
    # A bare % ends the command in a crontab.
    assert "%" not in jobs[0]


@pytest.mark.parametrize("name", ["runner-nightly.service", "runner-nightly.timer"])
def test_systemd_units(name: str) -> None:
    """They have sections, keys and values, and a service has a command and a timer a time."""
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment]
    unit.read(NIGHTLY / name)

    assert "Description" in unit["Unit"]
    assert ("ExecStart" in unit["Service"]) if name.endswith("service") else ("OnCalendar" in unit["Timer"])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed here")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    """Systemd's own check finds nothing; the program's path is replaced by one that exists here."""
    for name in ("runner-nightly.service", "runner-nightly.timer"):
        text = (NIGHTLY / name).read_text().replace("/usr/local/bin/runner", "/bin/true")
        (tmp_path / name).write_text(text)

    ran = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, sorted(tmp_path.iterdir()))],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (0, "") == (
        ran.returncode,
        "\n".join(line for line in ran.stderr.splitlines() if "nightly" in line),
    )


def test_github_workflow() -> None:
    """Its steps use an action or run something, and the key comes from a secret."""
    workflow = _yaml("github-actions.yaml")

    # PyYAML reads the key `on` as true; GitHub does not.
    assert _CRON_LINE.fullmatch(workflow[True]["schedule"][0]["cron"] + " x")
    for job in workflow["jobs"].values():
        assert all("uses" in step or "run" in step for step in job["steps"])
    assert "${{ secrets.POWERTOKENS_API_KEY }}" in (NIGHTLY / "github-actions.yaml").read_text()


def test_kubernetes_cron_job() -> None:
    """Mounted volumes exist, and a run does not start while the last one is still running."""
    job = _yaml("kubernetes-cronjob.yaml")
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]

    assert ("batch/v1", "CronJob") == (job["apiVersion"], job["kind"])
    assert "Forbid" == job["spec"]["concurrencyPolicy"]
    mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


def _command_lines() -> list[list[str]]:
    """Collect the words of every runner command in the examples."""
    pod = _yaml("kubernetes-cronjob.yaml")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    steps = [step for job in _yaml("github-actions.yaml")["jobs"].values() for step in job["steps"]]
    shell = [
        (NIGHTLY / "crontab").read_text(),
        (NIGHTLY / "runner-nightly.service").read_text(),
        *(step.get("run", "") for step in steps),
    ]
    found = re.findall(
        r"^[^#\n]*?(?:/|\b)runner ((?:run|report|validate) .*)", "\n".join(shell), re.MULTILINE
    )
    return [*(shlex.split(words) for words in found), *(container["args"] for container in pod["containers"])]


@pytest.mark.parametrize("words", _command_lines(), ids=" ".join)
def test_command_lines_are_valid(words: list[str]) -> None:
    """An option that was renamed would fail at night, when nobody is watching."""
    command = cli.get_command(click.Context(cli), words[0])

    assert command is not None
    assert command.make_context(words[0], [str(word) for word in words[1:]])


def test_each_scheduler_starts_a_run() -> None:
    """The test above has found every example."""
    assert 4 == sum(words[0] == "run" for words in _command_lines())


def _refuse(problem: object) -> None:
    raise AssertionError(str(problem))
