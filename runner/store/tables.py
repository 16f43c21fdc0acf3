"""
The tables of ``run.db``, and the number of its format.

``jobs`` has what changes, and is small; ``specs`` has what the manifest says of a job, and is written once. The
row of a job is always written as a whole, so several changes of one job in a commit are one write.

``specs.task_id`` is a task that the manifest names: its job is polled and downloaded, and never submitted.
``answers`` has the start of what an attempt was answered and was not understood.
``assets`` and ``parts`` have the number of their attempt, so that a new attempt does not use an old one's files.
"""

from __future__ import annotations

from runner.store import costs

FORMAT = 2
"""
Raised whenever an older program could no longer use the file.

Format 1 also has a table ``events``, which nothing uses; a file of that format keeps it and its number.
"""

APPLICATION_ID = 0x72756E72
"""The letters 'runr', which distinguish the database from another program's."""

SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE jobs (
    seq INTEGER PRIMARY KEY,
    job_id TEXT NOT NULL UNIQUE,
    idx INTEGER NOT NULL,
    model TEXT NOT NULL,
    digest TEXT NOT NULL,
    state TEXT NOT NULL,
    is_gone INTEGER NOT NULL DEFAULT 0,
    has_files INTEGER NOT NULL DEFAULT 0,
    timeout_s REAL,
    attempt INTEGER NOT NULL DEFAULT 0,
    task_id TEXT,
    other_task_id TEXT,
    remote_status TEXT,
    key TEXT,
    submitted_at REAL,
    completed_at REAL,
    finished_at REAL,
    generate_s REAL,
    download_s REAL,
    polls INTEGER NOT NULL DEFAULT 0,
    error_class TEXT,
    error TEXT,
    warnings TEXT
);
CREATE INDEX jobs_pending ON jobs (model, idx) WHERE state = 'pending';
CREATE INDEX jobs_idx ON jobs (is_gone, idx);

CREATE TABLE specs (
    seq INTEGER PRIMARY KEY,
    request TEXT NOT NULL,
    metadata TEXT NOT NULL,
    schema TEXT NOT NULL,
    warnings TEXT NOT NULL,
    file TEXT NOT NULL,
    line INTEGER NOT NULL,
    col INTEGER NOT NULL,
    task_id TEXT
);

CREATE TABLE attempts (
    seq INTEGER NOT NULL,
    number INTEGER NOT NULL,
    submitted_at REAL NOT NULL,
    outcome TEXT NOT NULL,
    task_id TEXT,
    http_status INTEGER,
    error TEXT,
    key TEXT,
    PRIMARY KEY (seq, number)
) WITHOUT ROWID;

CREATE TABLE assets (
    seq INTEGER NOT NULL,
    kind TEXT NOT NULL,
    path TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    content_type TEXT NOT NULL,
    width INTEGER,
    height INTEGER,
    duration_s REAL,
    attempt INTEGER NOT NULL,
    PRIMARY KEY (seq, kind)
) WITHOUT ROWID;

CREATE TABLE parts (
    seq INTEGER NOT NULL,
    kind TEXT NOT NULL,
    facts TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    PRIMARY KEY (seq, kind)
) WITHOUT ROWID;
"""

LATER_ADDITIONS = (
    """
CREATE TABLE IF NOT EXISTS answers (
    seq INTEGER NOT NULL,
    number INTEGER NOT NULL,
    answer TEXT NOT NULL,
    PRIMARY KEY (seq, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS replaced_requests (
    seq INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    request TEXT NOT NULL,
    PRIMARY KEY (seq, attempt)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS usages (
    seq INTEGER NOT NULL,
    number INTEGER NOT NULL,
    usage TEXT NOT NULL,
    PRIMARY KEY (seq, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tracks (
    seq INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    facts TEXT NOT NULL,
    PRIMARY KEY (seq, attempt)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS asset_urls (
    seq INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    urls TEXT NOT NULL,
    PRIMARY KEY (seq, attempt)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS checks (
    seq INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    findings TEXT NOT NULL,
    PRIMARY KEY (seq, attempt)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS uploads (
    digest TEXT NOT NULL,
    target TEXT NOT NULL,
    state TEXT NOT NULL,
    address TEXT NOT NULL,
    expires_at REAL,
    PRIMARY KEY (digest, target)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS old_assets (
    seq INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    kind TEXT NOT NULL,
    path TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    content_type TEXT NOT NULL,
    width INTEGER,
    height INTEGER,
    duration_s REAL,
    PRIMARY KEY (seq, attempt, kind)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS retakes (
    seq INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    verdict_at TEXT NOT NULL,
    PRIMARY KEY (seq, attempt)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS attempts_task ON attempts (task_id) WHERE task_id IS NOT NULL;
"""
    + costs.SCHEMA
)
"""
What the writer adds to a file of an earlier version too; such a version can still use the file. A new fact about
jobs goes here, since files that exist never get a new column.

``replaced_requests`` has the requests that made the assets of jobs whose request was changed since, by the attempt
that made them. ``usages`` has what the task of an attempt consumed according to the API. ``tracks`` has codec, frames
per second and sound of an attempt's video, and ``checks`` what was found of it, with warnings and a verdict.
``asset_urls`` has the places of an attempt's assets in an object store, by their kind.
``uploads`` has how far each local file is on its way to a target, by its digest. ``retakes`` has the takes that were
rejected and made again, each with what distinguishes the verdict from a later one, and ``old_assets`` what is kept of them. The
columns of a primary key come first: the check of SQLite 3.40 calls such a table damaged otherwise.
"""
