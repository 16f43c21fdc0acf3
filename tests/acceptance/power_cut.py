"""
What a power cut would leave of a run, at each of its moments.

The run is traced by ``strace``, and its writes, names and syncs are played again on a
model of a disk that keeps nothing it was not asked to keep: the bytes of a file as of
its last sync, and its name once the folder was synced. Of all that a power cut may
leave this is the least. What the program must not lose is looked for in there.

The model knows what the program does with files, and no more: bytes are appended or
written at an offset, names are made, changed and taken away.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_TRACED = (
    "?open,openat,?mkdir,mkdirat,?rename,?renameat,renameat2,?link,linkat,?unlink,unlinkat,"
    "write,writev,?sendfile,copy_file_range,pwrite64,ftruncate,fsync,fdatasync,sendto,sendmsg"
)
_LONGEST_BYTES = 1 << 22

_CALL = re.compile(r"(?P<pid>\d+) +(?P<name>\w+)\((?P<text>.*)")
_RESUMED = re.compile(r"(?P<pid>\d+) +<\.\.\. \w+ resumed>(?P<text>.*)")
_UNFINISHED = " <unfinished ...>"
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
_FILE = re.compile(r"\d+<(/[^>]*)>")
_LAST_NUMBER = re.compile(r"(\d+)\) += ")
_FAILED = re.compile(r"\) += -\d")


def can_trace() -> bool:
    """Return whether there is a ``strace`` that may be used here."""
    return (
        shutil.which("strace") is not None
        and subprocess.run(["strace", "-f", "-o", os.devnull, "true"], check=False).returncode == 0
    )


def traced(words: Sequence[str], trace: Path) -> list[str]:
    """Return the command line that runs another one and writes what it asks of the system to a file."""
    options = ["-f", "-y", "-s", str(_LONGEST_BYTES), "-e", f"trace={_TRACED}", "-o", str(trace)]
    return ["strace", *options, *words]


@dataclass(slots=True)
class Call:
    """
    A system call.

    Attributes:
        text: What follows the opening parenthesis, as far as strace has told it: arguments, then the result.
    """

    name: str
    text: str

    @property
    def data(self) -> bytes:
        """The bytes that are written or sent."""
        return b"".join(ast.literal_eval(f'b"{found}"') for found in _STRING.findall(self.text))

    @property
    def paths(self) -> list[str]:
        """The paths that it was given by name."""
        return [ast.literal_eval(f'b"{found}"').decode() for found in _STRING.findall(self.text)]

    @property
    def file(self) -> str:
        """The path of the file or folder that it is about; empty for a socket or a pipe."""
        found = _FILE.match(self.text)
        return "" if found is None else found[1]

    @property
    def last_number(self) -> int:
        """The last of its arguments."""
        found = _LAST_NUMBER.search(self.text)
        assert found is not None, self.text[-200:]
        return int(found[1])


class Disk:
    """Files and folders below one folder, as a program sees them and as a power cut leaves them."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._seen: dict[str, bytearray] = {}
        self._kept: dict[str, bytes] = {}
        # What has no entry was there before.
        self._is_name_kept: dict[str, bool] = {}
        self._starting: dict[int, tuple[str, bytes | list[str]]] = {}

    def is_whole(self, path: str) -> bool:
        """Return whether all bytes of a file, by whatever name, would be left."""
        return bytes(self._seen[path]) == self._kept.get(path)

    def after_power_cut(self, into: Path) -> Path:
        """Write what would be left into a folder, emptied before, and return it."""
        shutil.rmtree(into, ignore_errors=True)
        into.mkdir()
        for path in self._seen:
            if self._is_kept(path):
                place = into / os.path.relpath(path, self._root)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(self._kept.get(path, b""))
        return into

    def begin(self, call: Call) -> None:
        """Take in that a call begins: a sync keeps what was there by then."""
        if call.name in ("fsync", "fdatasync") and call.file in self._seen:
            self._starting[id(call)] = call.file, bytes(self._seen[call.file])
        elif call.name in ("fsync", "fdatasync"):
            names = [name for name in self._is_name_kept if os.path.dirname(name) == call.file]
            self._starting[id(call)] = call.file, names

    def end(self, call: Call) -> None:
        """Take in what a call has done."""
        if (started := self._starting.pop(id(call), None)) is not None:
            self._sync(*started)
        elif call.name in ("write", "writev", "pwrite64", "ftruncate"):
            if call.file in self._seen:
                self._write(call)
        elif call.paths and self._is_ours(call.paths[0]):
            self._name(call)

    def _sync(self, path: str, what: bytes | list[str]) -> None:
        if isinstance(what, bytes):
            self._kept[path] = what
        else:
            self._is_name_kept.update({name: True for name in what if name in self._is_name_kept})

    def _write(self, call: Call) -> None:
        content = self._seen[call.file]
        if call.name == "ftruncate":
            size = call.last_number
            content[:] = content[:size].ljust(size, b"\0")
        else:
            start = call.last_number if call.name == "pwrite64" else len(content)
            content.extend(bytes(max(0, start - len(content))))
            content[start : start + len(call.data)] = call.data

    def _name(self, call: Call) -> None:
        path = call.paths[0]
        match call.name.removesuffix("2").removesuffix("at"):
            case "open" if "O_CREAT" in call.text and path not in self._seen:
                self._seen[path] = bytearray()
                self._is_name_kept[path] = False
            case "open" if "O_TRUNC" in call.text:
                self._seen[path].clear()
            case "mkdir":
                self._is_name_kept[path] = False
            case "unlink":
                self._forget(path)
            case "rename":
                seen, kept = self._seen[path], self._kept.get(path, b"")
                self._forget(path)
                final = call.paths[1]
                self._seen[final], self._kept[final], self._is_name_kept[final] = seen, kept, False

    def _forget(self, path: str) -> None:
        self._seen.pop(path, None)
        self._kept.pop(path, None)
        self._is_name_kept.pop(path, None)

    def _is_ours(self, path: str) -> bool:
        return path.startswith(f"{self._root}/")

    def _is_kept(self, path: str) -> bool:
        while path != self._root:
            if not self._is_name_kept.get(path, True):
                return False
            path = os.path.dirname(path)
        return True


def moments(trace: Iterable[str], root: Path) -> Iterator[tuple[Call, Disk]]:
    """
    Play a trace again.

    Yields:
        Each call with the disk as it is just before; for a sync, just after. It is one and the same disk,
        which keeps changing.
    """
    disk = Disk(root)
    for call, has_ended in _parsed(trace):
        if has_ended:
            disk.end(call)
        else:
            disk.begin(call)
        if has_ended == call.name.endswith("sync"):
            yield call, disk


def calls(trace: Iterable[str]) -> Iterator[Call]:
    """Yield the calls of a trace that did what they were asked, in the order in which they ended."""
    return (call for call, has_ended in _parsed(trace) if has_ended)


def _parsed(trace: Iterable[str]) -> Iterator[tuple[Call, bool]]:
    """Yield each call when it begins, and with True when it has ended; not that it ended if it failed."""
    unfinished: dict[str, Call] = {}
    for line in trace:
        if (found := _CALL.match(line)) is not None:
            call = Call(found["name"], found["text"].removesuffix(_UNFINISHED))
            yield call, False
            if found["text"].endswith(_UNFINISHED):
                unfinished[found["pid"]] = call
                continue
        elif (found := _RESUMED.match(line)) is not None:
            call = unfinished.pop(found["pid"])
            call.text += found["text"]
        else:
            continue
        if _FAILED.search(call.text) is None:
            yield call, True
