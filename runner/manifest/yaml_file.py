"""What can be told of a YAML file from its bytes alone, before it is parsed."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import IO

from runner.manifest.yaml_builder import Unreadable


def open_text(path: Path) -> IO[bytes]:
    """
    Open a file that may be a manifest.

    Raises:
        Unreadable: It is no regular file, or says that it is not UTF-8.
        OSError: It is missing, or may not be read.
    """
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise Unreadable("this is a directory, not a manifest")
    if not stat.S_ISREG(mode):
        raise Unreadable("a manifest is read more than once; save this to a regular file first")
    stream = path.open("rb")
    start = stream.read(2)
    stream.seek(0)
    if start in (b"\xff\xfe", b"\xfe\xff"):
        stream.close()
        raise Unreadable("not UTF-8: it begins as UTF-16 does; save it as UTF-8")
    return stream


# A line that may go on with the outermost mapping: neither indented, nor a comment, nor an element of a list.
_OUTER_LINE = re.compile(rb"\n(?=[^\s#-]|-\S)([^\r\n:]{0,8})")
_JOBS_KEYS = (b"jobs", b'"jobs"', b"'jobs'")
# Carriage returns alone, U+0085, U+2028 and U+2029 end lines in YAML too.
_RARE_LINE_END = re.compile(rb"\r(?!\n)|\xc2\x85|\xe2\x80[\xa8\xa9]")

_RARE_BYTES = (b"\r", b"\xc2\x85", b"\xe2\x80")
_BLOCK = 1 << 20


def jobs_come_last(path: Path) -> bool:
    """
    Say whether no key follows `jobs`, given that the outermost mapping is a block without indentation.

    Only the beginnings of lines are looked at, which takes a twentieth of the time
    of parsing. When in doubt the answer is False, which costs time alone.
    """
    found = False
    with path.open("rb") as stream:
        # Whole lines, so that nothing that is looked for is cut in two.
        while block := stream.read(_BLOCK) + stream.readline():
            text = b"\n" + block
            if any(byte in text for byte in _RARE_BYTES) and _RARE_LINE_END.search(text):
                return False
            for match in _OUTER_LINE.finditer(text):
                if found:
                    return False
                found = match[1].rstrip() in _JOBS_KEYS
    return found
