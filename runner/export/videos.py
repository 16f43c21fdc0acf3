"""Videos as they are read for a dataset: each is held against its digest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

from runner.errors import ExportError
from runner.export.roots import Root
from runner.export.rows import Row, place

_BLOCK_BYTES = 1 << 20


def blocks_of(roots: Sequence[Root], row: Row) -> Iterator[bytes]:
    """
    Yield the content of a video.

    Raises:
        ExportError: After the last block: it is not the content that the run downloaded. Or the file can't be read.
    """
    digest = sha256()
    try:
        for block in roots[row.root].blocks(row.source):
            digest.update(block)
            yield block
    except FileNotFoundError:
        raise _error(row, "is missing") from None
    except OSError as error:
        raise _error(row, f"can't be read: {error.strerror or error}") from error
    if digest.hexdigest() != row.sha256:
        raise _error(row, "has changed since it was downloaded: its SHA-256 is another")


def is_same(path: Path, row: Row) -> bool:
    """Return whether a file has the content of a video."""
    try:
        if path.stat().st_size != row.bytes:
            return False
        with path.open("rb") as file:
            digest = sha256()
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    except OSError:
        return False
    return digest.hexdigest() == row.sha256


def _error(row: Row, problem: str) -> ExportError:
    return ExportError(
        f"{place(row.source, row.job_id)} {problem}",
        hint="put the file back and run the same command again, or leave the job out with --where 'job_id!=ID'",
    )
