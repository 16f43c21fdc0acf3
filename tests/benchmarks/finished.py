"""Make the run directory of a run whose jobs have all succeeded, without having run them: a manifest, a directory."""

from __future__ import annotations

import sys
import time
from datetime import date
from pathlib import Path

from runner.api.run_facts import RunFacts, RunOrigin, save_facts
from runner.core.model import OnChanged
from runner.manifest.loader import load
from runner.store.store import Store
from runner.store.sync import sync


def main() -> None:
    """Take the jobs in, and write down for each that it succeeded."""
    manifest, run_dir = Path(sys.argv[1]), Path(sys.argv[2])
    loaded = load(manifest, print, variables={}, today=date(2026, 11, 21))
    with Store(run_dir) as store, store.transaction() as connection:
        at = time.time()
        sync(connection, loaded.jobs(print), on_changed=OnChanged.ERROR, at=at)
        connection.execute(
            "UPDATE jobs SET state = 'succeeded', attempt = 1, task_id = 'task_' || seq, key = 'k', polls = 2, "
            "remote_status = 'succeeded', submitted_at = ?, finished_at = ?, generate_s = 60, download_s = 1",
            (at, at + 61),
        )
        connection.execute(
            "INSERT INTO attempts SELECT seq, 1, ?, 'accepted', task_id, 200, NULL, 'k' FROM jobs", (at,)
        )
        connection.execute(
            "INSERT INTO assets SELECT seq, 'video', 'assets/' || job_id || '.mp4', 10240, "
            "'9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08', 'video/mp4', 864, 496, 5.0, 1 FROM jobs"
        )
        save_facts(
            connection, RunFacts(loaded.header.settings, RunOrigin(str(manifest), False, sharded=True))
        )


if __name__ == "__main__":
    main()
