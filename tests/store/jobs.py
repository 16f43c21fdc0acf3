"""Jobs for the tests of the store."""

from __future__ import annotations

import hashlib
import json

from runner.core.model import JobSpec, OnChanged
from runner.core.problem import Position
from runner.store.store import Store
from runner.store.sync import SyncReport, sync


def make_spec(job_id: str, index: int = 0, **changes: object) -> JobSpec:
    """Create a job; its digest is that of its request."""
    request = {"model": "wan2.7-i2v", "prompt": f"prompt of {job_id}", "seconds": "5"} | changes
    digest = hashlib.blake2b(json.dumps(request, sort_keys=True).encode(), digest_size=16).hexdigest()
    return JobSpec(
        job_id=job_id,
        index=index,
        model=str(request["model"]),
        schema="wan2.7-i2v",
        request=request,
        digest=digest,
        source=Position("kittens.yaml", 3 + index, 5),
    )


def sync_jobs(store: Store, *specs: JobSpec, on_changed: OnChanged = OnChanged.ERROR) -> SyncReport:
    """Sync the store with a manifest of these jobs, in a transaction of its own."""
    with store.transaction() as connection:
        return sync(connection, specs, on_changed=on_changed, at=1000.0)
