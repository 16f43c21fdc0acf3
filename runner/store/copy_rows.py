"""Copy the jobs of one ``run.db`` into another, behind those that it has."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from runner.store.store import Store

_NOT_COPIED = ("meta", "parts")
"""Tables that belong to one directory: what is known of half a download is of no use without its file."""


def copy_rows(store: Store, database: Path) -> None:
    """
    Copy all that another database has of its jobs, in one transaction.

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


def _columns(connection: sqlite3.Connection, schema: str, table: str) -> list[str]:
    found = connection.execute("SELECT name FROM pragma_table_info(?, ?)", (table, schema))
    return [name for (name,) in found]
