"""Copy the jobs of one ``run.db`` into another, behind those that it has."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from runner.store.store import Store

_NOT_COPIED = ("meta", "parts", "uploads")
"""Tables that belong to one directory, for half a download is of no use without its file; `_UPLOADS` copies the last one."""
_UPLOADS = """
INSERT INTO main.uploads SELECT * FROM shard.uploads WHERE true
ON CONFLICT DO UPDATE SET state = excluded.state, address = excluded.address, expires_at = excluded.expires_at
WHERE excluded.state = 'ready' AND (state <> 'ready' OR coalesce(excluded.expires_at, 9e999) > coalesce(expires_at, 9e999))
"""
"""Of a file that several shards uploaded, what is ready and remains longest is kept."""


def copy_rows(store: Store, database: Path) -> None:
    """
    Copy all that another database has of its jobs and of uploaded files, in one transaction.

    Raises:
        StoreDamaged: The other database can't be read, or has a job that this one has.
    """
    with store.attached(database, "shard"), store.transaction() as connection:
        (offset,) = connection.execute("SELECT coalesce(max(seq), 0) FROM main.jobs").fetchone()
        tables = connection.execute("SELECT name FROM main.sqlite_schema WHERE type = 'table'").fetchall()
        for (table,) in tables:
            own, theirs = (_columns(connection, schema, table) for schema in ("main", "shard"))
            common = [column for column in own if column in theirs]
            if table in _NOT_COPIED or "seq" not in common:
                continue
            values = ", ".join(f"seq + {offset}" if column == "seq" else f'"{column}"' for column in common)
            columns = ", ".join(f'"{column}"' for column in common)
            connection.execute(f"INSERT INTO main.{table} ({columns}) SELECT {values} FROM shard.{table}")
        if _columns(connection, "shard", "uploads"):
            connection.execute(_UPLOADS)


def _columns(connection: sqlite3.Connection, schema: str, table: str) -> list[str]:
    found = connection.execute("SELECT name FROM pragma_table_info(?, ?)", (table, schema))
    return [name for (name,) in found]
