"""The local files of a manifest in a journal, each by its SHA-256: for machines that do not have them."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from hashlib import sha256
from pathlib import Path

from runner.core.filenames import INPUTS_NAME
from runner.core.model import FILE_KEY, Json, is_file_reference
from runner.jsontext import loads
from runner.manifest.local_files import read_checked
from runner.objects.port import ObjectMissing, ObjectStore
from runner.store import rows
from runner.store.journal import Journal
from runner.store.store import Store

_FOLDER = "media"
_REQUESTS = "SELECT seq, request FROM specs JOIN jobs USING (seq) WHERE has_files"


def upload_media(database: Path, store: ObjectStore) -> int:
    """
    Upload the local files of all requests of a ``run.db``; return how many there are.

    Raises:
        FileChanged: One is not what it was when it was checked.
        ObjectStoreError: The store can't be used.
    """
    done: set[str] = set()
    with closing(sqlite3.connect(database)) as connection:
        for _, text in connection.execute(_REQUESTS):
            for reference in _references(loads(text)):
                digest = reference["sha256"]
                if digest in done:
                    continue
                content = read_checked(reference)
                done.add(digest)
                try:
                    store.head(f"{_FOLDER}/{digest}")
                except ObjectMissing:
                    store.put(f"{_FOLDER}/{digest}", content, content_type=reference["media_type"])
    return len(done)


def fetch_media(store: Store, journal: Journal) -> int:
    """
    Put the files that requests name and this machine lacks into the run directory, as far as the journal has them.

    Returns:
        How many requests name such a file now.

    Raises:
        ObjectStoreError: The journal's store can't be used.
        RunDirError: ``run.db`` can't be written.
        OSError: A file can't be written.
    """
    changed = []
    for seq, text in store.reader.execute(_REQUESTS).fetchall():
        request = loads(text)
        found = [_fetch(reference, store.run_dir, journal.store) for reference in _references(request)]
        if any(found):
            changed.append((rows.canonical(request), seq))
    if changed:
        with store.transaction() as connection:
            connection.executemany("UPDATE specs SET request = ? WHERE seq = ?", changed)
    return len(changed)


def _fetch(reference: dict[str, Json], run_dir: Path, media: ObjectStore) -> bool:
    """Let a reference name a file here, if it names none and the journal has it; return whether it changed."""
    if os.path.exists(reference[FILE_KEY]):
        return False
    digest = str(reference["sha256"])
    path = run_dir.absolute() / INPUTS_NAME / f"{digest}{Path(reference[FILE_KEY]).suffix}"
    if not path.exists():
        try:
            content = media.get(f"{_FOLDER}/{digest}")
        except ObjectMissing:
            return False
        if sha256(content).hexdigest() != digest:
            return False
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    reference[FILE_KEY] = str(path)
    return True


def _references(value: Json) -> Iterator[dict[str, Json]]:
    if isinstance(value, dict) and is_file_reference(value):
        yield value
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _references(item)
