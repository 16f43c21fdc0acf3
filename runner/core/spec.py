"""
A job as it is asked for: all that checking a manifest needs of the values in `model`.

It stands apart since `validate` needs nothing else of all the values there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from runner.core.problem import Position

Json = Any
"""A value that JSON can carry."""

_NOTHING: Mapping[str, Json] = {}


class JobSpec(NamedTuple):
    """
    A job as the manifest asks for it: expanded, normalised, and valid.

    A tuple, since a million are made in a row: other frozen values take two to four times as long to fill.

    Attributes:
        job_id: The user's name for it, unique in a run.
        index: Its place in the manifest, from 0.
        schema: The schema that it was checked with.
        request: The body to send. A local file stands in it as ``{"$file": path, "sha256": hex,
            "media_type": "image/png", "bytes": n}`` (path absolute) and becomes a data URI only when it is sent.
        digest: Of the request, as sent; with the job id it is the job's identity.
        metadata: The user's own, copied to the results.
        timeout_s: How long the remote task may run before our patience ends; None for the manifest's.
        task_id: A task that exists already: it is polled and downloaded, never submitted.
        warnings: What a person should know of this job, one sentence each.
        source: Where it stands in the manifest or its row file.
    """

    job_id: str
    index: int  # type: ignore[assignment]  # nobody searches a job, which is what a tuple's own is for
    model: str
    schema: str
    request: Mapping[str, Json]
    digest: str
    metadata: Mapping[str, Json] = _NOTHING
    timeout_s: float | None = None
    task_id: str | None = None
    warnings: tuple[str, ...] = ()
    source: Position = Position("")
