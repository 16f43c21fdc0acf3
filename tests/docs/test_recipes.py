"""The recipes for unattended runs: what they install, and what they remember."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
NIGHTLY = ROOT / "manifests" / "nightly"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def _steps() -> list[dict[str, Any]]:
    """Return the steps of the workflow."""
    workflow = yaml.safe_load((NIGHTLY / "github-actions.yaml").read_text(encoding="utf-8"))
    steps: list[dict[str, Any]] = workflow["jobs"]["videos"]["steps"]
    return steps


def _index(steps: list[dict[str, Any]], text: str) -> int:
    """Return the index of the only step that uses or runs something."""
    (found,) = (
        number for number, step in enumerate(steps) if text in f"{step.get('uses')} {step.get('run')}"
    )
    return found


def test_workflow_remembers_what_was_paid_for() -> None:
    """The run directory is restored before the run, and saved however it ends, under a key of its own."""
    steps = _steps()
    restore, run, save = (
        _index(steps, text) for text in ("actions/cache/restore@", "runner run", "actions/cache/save@")
    )

    assert restore < run < save
    assert not any("actions/cache@" in step.get("uses", "") for step in steps)
    assert steps[save]["if"] == "always()"
    key = steps[save]["with"]["key"]
    assert key == steps[restore]["with"]["key"]
    assert "${{ github.run_id }}-${{ github.run_attempt }}" in key
    assert key.startswith(steps[restore]["with"]["restore-keys"])


def test_workflow_does_not_cache_videos(tmp_path: Path) -> None:
    """The database and the results are cached, the folder of videos is not."""
    steps = _steps()
    paths = steps[_index(steps, "actions/cache/save@")]["with"]["path"]
    assert paths == steps[_index(steps, "actions/cache/restore@")]["with"]["path"]
    (tmp_path / "output" / "nightly" / "assets").mkdir(parents=True)
    (tmp_path / "output" / "nightly" / "assets" / "a.mp4").touch()
    (tmp_path / "output" / "nightly" / "run.db").touch()
    cached: set[Path] = set()
    for pattern in paths.split():
        found = set(tmp_path.glob(pattern.removeprefix("!")))
        cached = cached - found if pattern.startswith("!") else cached | found

    assert {tmp_path / "output" / "nightly" / "run.db"} == cached


def test_nothing_installs_a_stranger() -> None:
    """The name of the command is somebody else's on the package index: everything installs from the checkout."""
    assert PROJECT["name"] == "video-batch-runner"
    assert PROJECT["scripts"] == {"runner": "runner.__main__:main"}
    pages = [
        path
        for folder in ("manifests", "runner", "schemas", ".github")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".md", ".py", ".yaml", ".yml", ".service", ".html", ""} and path.is_file()
    ]
    installs = [
        (path.name, match[1])
        for path in (ROOT / "README.md", *pages)
        for match in re.finditer(
            r"\b(?:pip|pipx|uv|uvx)(?: pip)? (?:install|run|tool install) ([^\n`]*)", path.read_text()
        )
    ]

    assert {"README.md", "github-actions.yaml", "Dockerfile", "errors.py"} <= {name for name, _ in installs}
    for name, arguments in installs:
        assert not re.search(r"(?:^|[\s'\"])runner\b", arguments.partition("&&")[0]), name


def test_image_has_what_it_copies() -> None:
    """Each source of a copy is in the checkout, and the image runs the command as a user without rights."""
    lines = (NIGHTLY / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = [name for line in lines if line.startswith("COPY ") for name in line.split()[1:-1]]
    force_included = {"runner", "schemas", "pyproject.toml", PROJECT["readme"], *PROJECT["license-files"]}

    assert force_included == set(copied)
    assert all((ROOT / name).exists() for name in copied)
    assert lines[-1] == 'ENTRYPOINT ["runner"]'
    (user,) = (line.split()[1].partition(":")[0] for line in lines if line.startswith("USER "))
    cron_job = yaml.safe_load((NIGHTLY / "kubernetes-cronjob.yaml").read_text(encoding="utf-8"))
    pod = cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert int(user) == pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"]


def _has_docker() -> bool:
    return (
        shutil.which("docker") is not None
        and not subprocess.run(["docker", "info"], capture_output=True, check=False).returncode
    )


@pytest.mark.slow
@pytest.mark.skipif(not _has_docker(), reason="docker is not there")
def test_image_is_built() -> None:
    """The image is built from the checkout, and its command starts."""
    build = ["docker", "build", "--quiet", "-f", str(NIGHTLY / "Dockerfile"), str(ROOT)]
    image = subprocess.run(build, check=True, capture_output=True, text=True).stdout.strip()
    started = subprocess.run(
        ["docker", "run", "--rm", image, "--version"], check=True, capture_output=True, text=True
    )

    assert started.stdout.startswith("runner ")
