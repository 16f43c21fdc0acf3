"""
A log of one shard's commits in an object store: durable off this machine, and the fence against older owners.

``shards/00003/log/0000000042`` is the 42nd record, made by create-if-absent, so that a position never gets a second record.
Whoever opens the log reads it to its end and adds a *fence* there. From then on the owner before it can add nothing:
the position that it takes for the next one is taken. A commit counts once its record is in the log. A *base* is a copy
of ``run.db`` under ``shards/00003/base/``; it counts once a record names it, and a new owner reads from the last one on.
After a *retired* record nobody opens the log again.

Nothing here compares clocks. A record that is there already may be one's own, whose answer was lost: only its bytes tell,
and no two processes write the same bytes.
"""

from __future__ import annotations

import json
import os
import random
import re
import socket
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from msgspec import Struct, ValidationError, convert

from runner.core.sanitize import command_text
from runner.errors import Fenced, ObjectStoreError, StoreDamaged, UsageError
from runner.objects.base import ObjectExists, ObjectMissing, ObjectStore

PATIENCE_S = 60.0
"""How long an append is tried again. What was accepted in the meantime is saved on this machine."""
RECORDS_WORTH_A_BASE = 2000
"""After this many records a new base saves the next owner time."""
PROBE_REQUESTS = 4
"""Of `require_conditional_create`."""
_READERS = 32
_CHUNK_BYTES = 1 << 20
_LONGEST_PAUSE_S = 2.0


class Record(Struct, frozen=True):
    """
    One record of a log.

    Attributes:
        kind: What it is; a later version may have more kinds.
        epoch: How many owners the log has had.
        owner: Host and pid, for people.
        nonce: Of the owner's process.
        body: What the kind needs.
    """

    kind: Literal["fence", "batch", "base", "retired"]
    epoch: int
    owner: str
    nonce: str
    body: dict[str, Any]


class Contents(Struct, frozen=True):
    """
    What a log holds when it is opened.

    Attributes:
        base: The record of the last base; None without one.
        batches: The changes since, in order.
        last_change: The position of the last record that changes anything; 0 without any.
        successor: The run directory that the shard was merged into, or None.
    """

    base: dict[str, Any] | None
    batches: tuple[dict[str, Any], ...]
    last_change: int
    successor: str | None = None


class Journal:
    """
    The log of one shard. Methods block; one thread uses it at a time.

    Args:
        store: Where the journal of the run is.
        run_id: The ``id`` of its ``run.json``.
        index: The shard's.
        sleep, clock: The time, for tests.
    """

    def __init__(
        self,
        store: ObjectStore,
        run_id: str,
        index: int,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store
        self.run_id = run_id
        self.index = index
        self._folder = f"shards/{index:05d}"
        self._sleep, self._clock = sleep, clock
        self._nonce = uuid4().hex
        self._owner = f"pid {os.getpid()} on host {socket.gethostname()}"
        self._epoch = 0
        self.position = 0
        self.is_closed = False

    @property
    def url(self) -> str:
        """Where the journal of the run is."""
        return self.store.url

    def has_begun(self) -> bool:
        """
        Return whether a run has begun with this log.

        Raises:
            ObjectStoreError: The store can't be used.
        """
        return self._last_base() > 0

    def open(self) -> Contents:
        """
        Read the log, and become its owner.

        Raises:
            Fenced: The shard was merged into another directory.
            StoreDamaged: A record is missing, or can't be read.
            ObjectStoreError: The store can't be used.
        """
        while True:
            records = self._read()
            contents = self._contents(records)
            self.position = max(records, default=0)
            self._epoch = 1 + max((record.epoch for record in records.values()), default=0)
            try:
                self._append("fence", {})
            except Fenced:
                # Somebody was quicker; what he wrote comes first.
                continue
            return contents

    def read(self) -> Contents:
        """
        Read the log and leave it as it is; its owner continues.

        Raises:
            StoreDamaged, ObjectStoreError: As for `open`.
        """
        return self._contents(self._read(), may_be_retired=True)

    def append(self, batch: dict[str, Any]) -> None:
        """
        Add the changes of a commit; when this returns they are durable, and this process still is the owner.

        Raises:
            Fenced: Another process is the owner; nothing was added.
            ObjectStoreError: The store could not be used for `PATIENCE_S`. Whether the record is there is unknown, and this
                journal is not to be used any more.
        """
        self._append("batch", batch)

    def write_base(self, database: Path) -> None:
        """
        Add a copy of the database, which is a file that nobody else uses.

        Raises:
            Fenced, ObjectStoreError: As for `append`.
        """
        packed = database.with_name(f"{database.name}.z")
        digest = sha256()
        try:
            with open(database, "rb") as source, open(packed, "wb") as target:
                compressor = zlib.compressobj(1)
                while chunk := source.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    target.write(compressor.compress(chunk))
                target.write(compressor.flush())
            name = f"{self._folder}/base/{self.position + 1:010d}-{uuid4().hex[:12]}"
            self._repeat(lambda: self.store.put(name, packed))
        finally:
            packed.unlink(missing_ok=True)
        self._append("base", {"object": name, "sha256": digest.hexdigest()})
        for old in self.store.list(f"{self._folder}/base"):
            if old.name < name and self._position_of_base(old.name):
                # It only takes up room; and who is reading it reads the log again.
                with suppress(ObjectStoreError):
                    self.store.delete(old.name)

    def retire(self, successor: str) -> None:
        """
        Close the log permanently.

        Raises:
            Fenced, ObjectStoreError: As for `append`.
        """
        self._append("retired", {"into": successor})
        self.is_closed = True

    def put_file(self, path: Path) -> None:
        """
        Write a derived file beside the log, for people; nothing is read from it.

        Raises:
            ObjectStoreError: The store can't be used.
            OSError: The file can't be read.
        """
        self.store.put(f"{self._folder}/{path.name}", path)

    def fetch_base(self, base: dict[str, Any], target: Path) -> None:
        """
        Write the database of a base to a file.

        Raises:
            StoreDamaged: It is missing, or is not what its record says.
            ObjectStoreError: The store can't be used.
        """
        try:
            content = zlib.decompress(self.store.get(base["object"]))
        except (ObjectMissing, zlib.error):
            content = b""
        if sha256(content).hexdigest() != base["sha256"]:
            raise StoreDamaged(
                f"{self.url}/{base['object']} is missing or was changed",
                hint="run the same command again; if another process was at work, it has written a newer one",
            )
        target.write_bytes(content)

    def _append(self, kind: str, body: dict[str, Any]) -> None:
        record = {
            "kind": kind,
            "epoch": self._epoch,
            "owner": self._owner,
            "nonce": self._nonce,
            "body": body,
        }
        data = zlib.compress(json.dumps(record, separators=(",", ":")).encode(), 1)
        self._repeat(lambda: self._create(self.position + 1, data))
        self.position += 1

    def _create(self, position: int, data: bytes) -> None:
        name = self._name(position)
        try:
            self.store.create(name, data)
        except ObjectExists:
            try:
                found = self.store.get(name)
            except ObjectMissing:
                # A conflict that left nothing.
                raise ObjectStoreError(
                    f"{self.url} refuses {name} and does not have it", hint="run the same command again"
                ) from None
            if found != data:
                raise self._fenced(_decode(found, name)) from None

    def _repeat(self, request: Callable[[], None]) -> None:
        """Make a request again, with pauses, until it succeeds or `PATIENCE_S` are over."""
        until, pause_s = self._clock() + PATIENCE_S, 0.1
        while True:
            try:
                return request()
            except ObjectStoreError:
                if self._clock() >= until:
                    raise
            self._sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    def _fenced(self, record: Record) -> Fenced:
        if record.kind == "retired":
            return _merged(record)
        return Fenced(
            f"{record.owner} has taken over this shard of {self.url}",
            hint="let that process continue; what this one had submitted is uncertain there until it is resolved",
        )

    def _read(self) -> dict[int, Record]:
        """Return the records from the last base on, by position."""
        first = self._last_base()
        log = f"{self._folder}/log"
        listed = {
            position
            for info in self.store.list(log, after=self._name(first) if first else None)
            if (position := _position(info.name, log)) is not None
        }
        last, start = max(listed, default=first), max(first, 1)
        if (gap := next((n for n in range(start + 1, last) if n not in listed), None)) is not None:
            # Nothing after it is read: there may be a file of a very great number.
            self._get(gap)
        with ThreadPoolExecutor(_READERS) as pool:
            records = dict(
                zip(range(start, last + 1), pool.map(self._get, range(start, last + 1)), strict=True)
            )
        # A list may be older than what is there.
        while (record := self._find(last + 1)) is not None:
            last += 1
            records[last] = record
        return records

    def _last_base(self) -> int:
        """Return the position of the record that names the last base; 0 without one."""
        for info in reversed(self.store.list(f"{self._folder}/base")):
            record = self._find(position := self._position_of_base(info.name))
            if record is not None and record.body.get("object") == info.name:
                return position
        return 0

    def _position_of_base(self, name: str) -> int:
        return _position(name.rpartition("-")[0], f"{self._folder}/base") or 0

    def _contents(self, records: dict[int, Record], *, may_be_retired: bool = False) -> Contents:
        base: dict[str, Any] | None = None
        batches: list[dict[str, Any]] = []
        last_change, successor = 0, None
        for position, record in sorted(records.items()):
            if record.kind == "retired":
                if not may_be_retired:
                    raise _merged(record)
                successor = str(record.body.get("into"))
            if record.kind == "base":
                base, batches, last_change = record.body, [], position
            elif record.kind == "batch":
                batches.append(record.body)
                last_change = position
        return Contents(base, tuple(batches), last_change, successor)

    def _get(self, position: int) -> Record:
        record = self._find(position)
        if record is None:
            raise StoreDamaged(
                f"the journal {self.url} has no record {self._name(position)}, and has later ones",
                hint="restore it: without it nobody knows what was paid for",
            )
        return record

    def _find(self, position: int) -> Record | None:
        name = self._name(position)
        try:
            return _decode(self.store.get(name), name)
        except ObjectMissing:
            return None

    def _name(self, position: int) -> str:
        return f"{self._folder}/log/{position:010d}"


def _position(name: str, folder: str) -> int | None:
    """Return the position that a name stands for; None for what others put there, such as a copy or a note."""
    found = re.fullmatch(f"{folder}/([0-9]{{10}})", name)
    return None if found is None else int(found.group(1))


def _decode(data: bytes, name: str) -> Record:
    try:
        return convert(json.loads(zlib.decompress(data)), Record)
    except (zlib.error, ValueError, ValidationError):
        raise StoreDamaged(
            f"the record {name} of the journal can't be read", hint="restore it, or upgrade runner"
        ) from None


def _merged(record: Record) -> Fenced:
    into = record.body.get("into")
    return Fenced(
        f"this shard was merged into {into}, which has its jobs now",
        hint=f"continue there: {command_text('runner', 'resume', str(into))}; if that merge was cut off, run it again",
    )


def require_conditional_create(store: ObjectStore) -> None:
    """
    Check that a store refuses to create an object that exists, by doing so.

    Raises:
        UsageError: It does not: nothing would keep two processes from paying for the same jobs.
        ObjectStoreError: It can't be used.
    """
    name = f"probe/{uuid4().hex}"
    for content in (b"first", b"second"):
        with suppress(ObjectExists):
            store.create(name, content)
    try:
        kept = store.get(name)
    except ObjectMissing:
        kept = b""
    store.delete(name)
    if kept != b"first":
        raise UsageError(
            f"{store.url} lets a process replace what another one has created, so it can't hold a journal",
            hint="use a store that honors If-None-Match on PUT, such as S3, or file:///FOLDER",
        )
