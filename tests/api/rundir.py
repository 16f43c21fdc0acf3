"""Run directories in any state, made with the real store and without a run."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path

from runner.api.run_facts import RunFacts, RunOrigin, save_facts
from runner.core.lifecycle import State
from runner.core.model import OnChanged
from runner.manifest.loader import load
from runner.store.store import Store
from runner.store.sync import sync

MANIFEST = """\
version: 1
name: kittens
limits: {{submit: 2/s, in_flight: 4}}
jobs:
  - id: ${{n}}
    matrix: {{n: [{ids}]}}
    request: {{model: seedance-1-0-pro-250528, prompt: 'kitten ${{n}}'}}
"""


def write_manifest(path: Path, *ids: str) -> Path:
    """Write a manifest with a job for each id."""
    path.write_text(MANIFEST.format(ids=", ".join(ids)))
    return path


def make_run(
    run_dir: Path, manifest: Path, states: Mapping[str, State], *, simulate: bool = False, **changes: object
) -> Path:
    """
    Load a manifest into a run directory, and put each job into a state.

    Further arguments are columns of all jobs, such as ``generate_s``.
    """
    loaded = load(manifest, _refuse, variables={}, today=date(2026, 11, 21))
    with Store(run_dir) as store, store.transaction() as connection:
        sync(connection, loaded.jobs(_refuse), on_changed=OnChanged.ERROR, at=0.0)
        for job_id, state in states.items():
            columns = {"state": state.value, "attempt": int(state is not State.PENDING), **changes}
            sets = ", ".join(f"{name} = ?" for name in columns)
            connection.execute(f"UPDATE jobs SET {sets} WHERE job_id = ?", (*columns.values(), job_id))
        connection.execute(
            "INSERT INTO assets SELECT seq, 'video', 'assets/' || job_id || '.mp4', 9, ?, 'video/mp4', NULL, NULL, NULL, 1 "
            "FROM jobs WHERE state = 'succeeded'",
            ("a" * 64,),
        )
        save_facts(
            connection, RunFacts(loaded.header.settings, RunOrigin(str(manifest), simulate, sharded=False))
        )
    (run_dir / "assets").mkdir(exist_ok=True)
    for job_id, state in states.items():
        if state is State.SUCCEEDED:
            (run_dir / "assets" / f"{job_id}.mp4").write_bytes(b"123456789")
    return run_dir


def _refuse(problem: object) -> None:
    raise AssertionError(problem)
