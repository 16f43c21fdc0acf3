"""
Room on the disk that is set aside, to be given up when there is no other.

The worst moment for a full disk is between a POST and the commit of its task
id: the task is paid for, and its id is nowhere. The reserve is larger than what
such a moment has to write.
"""

from __future__ import annotations

import os
from pathlib import Path

RESERVE_NAME = ".reserve"
RESERVE_BYTES = 4 * 1024 * 1024


class Reserve:
    """
    A file of zeros in the run directory, there only while a run is going.

    Where it can't be made, because the disk is full already, the run starts
    without it: `is_given_up` is true from the start, and nothing is submitted.
    """

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / RESERVE_NAME
        self.is_given_up = not self._allocate()

    def give_up(self) -> bool:
        """Free the room; say whether there was any to free."""
        if self.is_given_up:
            return False
        self.is_given_up = True
        self._path.unlink(missing_ok=True)
        return True

    def close(self) -> None:
        """Free the room at the end of a run."""
        self._path.unlink(missing_ok=True)

    def _allocate(self) -> bool:
        try:
            with self._path.open("wb") as file:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
                else:
                    file.write(bytes(RESERVE_BYTES))
        except OSError:
            self._path.unlink(missing_ok=True)
            return False
        return True
