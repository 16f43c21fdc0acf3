"""Which local files of a manifest a run would upload."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from msgspec import Struct

from runner.core.model import Json
from runner.core.settings import Settings
from runner.jsontext import loads
from runner.manifest.local_files import uploads_in
from runner.schema.catalog import completed, load_catalog, short_name
from runner.schema.request_schema import RequestSchema
from runner.store.files import is_ready, read_uploads

Select = Callable[[Mapping[str, Json]], RequestSchema | None]


class PlannedUploads(Struct, frozen=True):
    """Files that would be uploaded, each content once, and their size together."""

    files: int
    bytes: int


class UploadCounter:
    """Counts the files of jobs to submit that were not uploaded yet."""

    def __init__(self, connection: sqlite3.Connection, settings: Settings) -> None:
        self._inputs = settings.inputs
        self._sizes: dict[str, int] = {}
        if self._inputs is not None:
            self._select = schema_selector(settings)
            self._known = read_uploads(connection, self._inputs.upload)

    def add(self, request: Mapping[str, Json]) -> None:
        """Count the files of a request."""
        if self._inputs is None:
            return
        for _, reference in uploads_in(request, self._inputs, self._select):
            if not is_ready(self._known.get(reference["sha256"]), time.time()):
                self._sizes[reference["sha256"]] = reference["bytes"]

    def counted(self) -> PlannedUploads | None:
        """Return what was counted; None if the manifest has no `inputs`."""
        return None if self._inputs is None else PlannedUploads(len(self._sizes), sum(self._sizes.values()))


def schema_selector(settings: Settings) -> Select:
    """Return a function that finds the schema of a request by its model, among those that the manifest names too."""
    own = {}
    for path in map(Path, settings.schemas):
        # They were checked with the jobs; without one that is gone since, its jobs send their files as data.
        with contextlib.suppress(OSError, ValueError):
            own[short_name(path)] = completed(loads(path.read_bytes()))
    catalog = load_catalog().with_schemas(own) if own else load_catalog()

    def select(request: Mapping[str, Json]) -> RequestSchema | None:
        schema = catalog.select(request)
        return schema if isinstance(schema, RequestSchema) else None

    return select
