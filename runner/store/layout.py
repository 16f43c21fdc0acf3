"""
The format of ``run.db``, and what each write promises.

``run.db`` is the one truth of a run; results, summary and report are derived
from it and can be made again. It is SQLite with a write-ahead log and
``synchronous=FULL``: a commit that returned survives a power cut.

- The intent to submit a job is committed before its POST leaves. A job found in
  `submitting` by a later run is therefore exactly a job whose POST may have left.
- A task id is committed before the first query for it.
- A job is reported as ended only after its end is committed, and it is
  committed as succeeded only after its assets are durable.
- Everything else may wait for the next commit: losing it costs a query or a
  download, never money.

``jobs`` holds what changes, and is small; ``specs`` holds what was asked, and is
written once. A job's row is always written whole, so several changes of one job
within a commit are one write.

``specs.task_id`` is the task that was asked for by its id: its job is polled and
fetched, and never submitted. ``assets`` and ``parts`` name the attempt that they
are of, so that a new attempt never takes an old one's file for its own.
"""

from __future__ import annotations

FORMAT = 1
"""Raised whenever an older program could no longer understand the file."""

APPLICATION_ID = 0x72756E72
"""The letters 'runr', so that `file` and we can tell the database from another program's."""

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

CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    kind TEXT NOT NULL,
    detail TEXT NOT NULL
);
"""
