"""Which gateway a run uses if the environment, the options and the saved run disagree."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from runner.api.options import RunOptions
from runner.api.run import run
from runner.api.run_dir import load_config, require_facts
from runner.api.run_facts import save_facts
from runner.core.lifecycle import State
from runner.core.settings import DEFAULT_BASE_URL
from runner.errors import UsageError
from runner.store.store import Store
from tests.api.rundir import make_run, write_manifest

OTHER = "http://127.0.0.1:9"
"""Another gateway, where nobody listens."""


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POWERTOKENS_API_KEY", "sk-0123456789")
    monkeypatch.setenv("POWERTOKENS_BASE_URL", OTHER)


@pytest.mark.parametrize(("base_url", "gateway"), [(None, DEFAULT_BASE_URL), (OTHER, OTHER)])
def test_saved_run_keeps_its_gateway(base_url: str | None, gateway: str, tmp_path: Path) -> None:
    """
    Only an option changes the gateway of a saved run, not the environment: a task that is polled elsewhere looks lost.
    """
    run_dir = make_run(tmp_path / "out", write_manifest(tmp_path / "m.yaml", "a"), {})

    with Store(run_dir) as store:
        config = load_config(store, RunOptions(base_url=base_url))

    assert gateway == config.gateway


def test_run_whose_manifest_is_out_of_reach_continues(tmp_path: Path) -> None:
    """
    Its folder may be somebody else's; a name that is too long for the file system stands for that.
    """
    run_dir = make_run(tmp_path / "out", write_manifest(tmp_path / "m.yaml", "a"), {})

    with Store(run_dir) as store:
        facts = require_facts(store.reader, run_dir)
        with store.transaction() as connection:
            origin = replace(facts.origin, manifest=f"/{'x' * 300}/m.yaml")
            save_facts(connection, replace(facts, origin=origin))
        config = load_config(store, RunOptions(base_url=OTHER))

    assert OTHER == config.gateway


async def test_run_does_not_poll_tasks_at_another_gateway(tmp_path: Path) -> None:
    """
    A manifest whose tasks exist at one gateway is refused if the environment now names another.
    """
    manifest = write_manifest(tmp_path / "m.yaml", "a")
    make_run(tmp_path / "out", manifest, {"a": State.TIMED_OUT})

    with pytest.raises(UsageError, match=f"has 1 task at {DEFAULT_BASE_URL}"):
        await run(manifest, output=tmp_path / "out")
