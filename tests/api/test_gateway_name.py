"""The gateway that a run's files name: the simulator for a simulated run, whichever command writes them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner.api.report import write_html
from runner.api.resolve import Resolution, resolve_as
from runner.core.lifecycle import State
from runner.core.settings import DEFAULT_BASE_URL
from tests.api.rundir import make_run, write_manifest


@pytest.fixture(params=[True, False], ids=["simulated", "real"])
def simulate(request: pytest.FixtureRequest) -> bool:
    """Test both kinds of run."""
    return bool(request.param)


@pytest.fixture
def run_dir(tmp_path: Path, simulate: bool) -> Path:
    """Make a run with an uncertain job."""
    manifest = write_manifest(tmp_path / "m.yaml", "a")
    return make_run(tmp_path / "out", manifest, {"a": State.UNCERTAIN}, simulate=simulate)


def test_report_names_the_gateway(run_dir: Path, simulate: bool) -> None:
    """
    A report that is written again does not call a simulated run a real one, and has a banner.
    """
    page = write_html(run_dir, now_at=0.0).read_text(encoding="utf-8")

    assert (simulate, not simulate) == ("simulator" in page, DEFAULT_BASE_URL in page)
    assert simulate == ("<strong>Simulated run.</strong>" in page)


def test_resolve_names_the_gateway(run_dir: Path, simulate: bool) -> None:
    """
    The results that are rewritten after a job was resolved name the gateway as the run itself does.
    """
    resolve_as(run_dir, ["a"], Resolution.GIVE_UP)

    (line,) = (run_dir / "results.jsonl").read_text(encoding="utf-8").splitlines()
    assert ("simulator" if simulate else DEFAULT_BASE_URL) == json.loads(line)["gateway"]
