"""What a ledger keeps of metadata, and what its errors say."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

from runner.errors import LedgerDamaged, LedgerError, LedgerLocked
from runner.jsontext import loads
from runner.store.database import IN_USE, NO_ROOM

LOCK_WAIT_S = 30.0
"""How long another process may hold the ledger."""

_MAX_TAG_CHARS = 100
_MAX_TAGS_CHARS = 1000


def short_tags(metadata: str) -> str | None:
    """Return the short single values of a job's metadata as JSON; None if there are none."""
    if metadata == "{}":
        return None
    found: Any = loads(metadata)
    tags = {
        key: value
        for key, value in found.items()
        if isinstance(value, str | int | float | bool) and len(str(value)) <= _MAX_TAG_CHARS
    }
    text = json.dumps(tags, ensure_ascii=False, separators=(",", ":"))
    return text if tags and len(text) <= _MAX_TAGS_CHARS else None


def translate(error: sqlite3.DatabaseError, path: Path) -> LedgerError:
    """Convert SQLite's error to one that says what to do."""
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith(IN_USE):
        return LedgerLocked(
            f"{path} has been locked by another process for {LOCK_WAIT_S:.0f} s",
            hint="end the process that holds it, then run the same command again",
        )
    if name in NO_ROOM:
        return LedgerError(
            f"no space left to write {path}", hint="free some space, then run the same command again"
        )
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_IOERR")):
        return LedgerError(
            f"{path} can't be read or written: {error}",
            hint="check its disk, owner and permissions, then run the same command again",
        )
    return LedgerDamaged(
        f"{path} can't be read as a ledger ({error}); it was left as it is",
        hint="restore it from a backup, or move it away: every run writes its part again when it is continued",
    )
