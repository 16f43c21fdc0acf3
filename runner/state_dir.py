"""
Small values that the program remembers for its user, outside any run directory.

They are kept in ``$XDG_STATE_HOME/runner``, by default ``~/.local/state/runner``. They only help: nothing depends on
them, so whatever can't be read counts as absent, and whatever can't be written is not kept.
"""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

MAX_BYTES = 1 << 20


def state_folder() -> Path:
    """
    Return the folder; it need not exist.

    Raises:
        OSError: The user has no home.
    """
    # A relative path is to be ignored, by the specification.
    configured = os.environ.get("XDG_STATE_HOME", "")
    try:
        base = Path(configured) if os.path.isabs(configured) else Path.home() / ".local" / "state"
    except RuntimeError as error:
        raise OSError("the user has no home") from error
    return base / "runner"


def read_state(name: str) -> Any:
    """Return the JSON value kept under a name; None if there is none, or it can't be read."""
    with suppress(OSError, ValueError, RecursionError):
        path = state_folder() / f"{name}.json"
        if path.is_file() and path.stat().st_size <= MAX_BYTES:
            return json.loads(path.read_text(encoding="utf-8"))
    return None


def write_state(name: str, value: Any) -> None:
    """Keep a JSON value under a name, in place of the one before, if that is possible."""
    with suppress(OSError):
        folder = state_folder()
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(value)
        if len(text) > MAX_BYTES:
            return
        descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=f".{name}-")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(temporary, folder / f"{name}.json")
        except OSError:
            os.unlink(temporary)
            raise
