"""How the tests of manifests read them."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from runner.core.model import JobSpec, Json
from runner.core.problem import Problem
from runner.errors import ManifestError
from runner.manifest.document import Entry, open_document
from runner.manifest.header import read_header
from runner.manifest.loader import Manifest, ProblemCollector, load
from runner.manifest.settings import Header

SEEDANCE = "seedance-1-0-pro-250528"
TODAY = date(2026, 11, 21)


@dataclass(frozen=True)
class ReadManifest:
    """A manifest that was read to its end."""

    manifest: Manifest
    jobs: list[JobSpec]
    problems: list[str]
    invalid: list[tuple[JobSpec, str]]

    @property
    def ids(self) -> list[str]:
        """Every job's id, in order."""
        return [job.job_id for job in self.jobs]

    @property
    def requests(self) -> list[dict[str, Json]]:
        """Every job's request, in order."""
        return [dict(job.request) for job in self.jobs]


def read_manifest(path: Path, *, is_strict: bool = False, **variables: Json) -> ReadManifest:
    """Read a manifest and check its jobs; positions name files without their folder."""
    problems = ProblemCollector()
    invalid: list[tuple[JobSpec, str]] = []
    manifest = load(path, problems, variables=variables, today=TODAY, is_strict=is_strict)
    jobs = list(manifest.jobs(problems, on_invalid=lambda job, reason: invalid.append((job, reason))))
    shown = [str(problem).replace(f"{path.parent}/", "") for problem in problems.problems]
    return ReadManifest(manifest, jobs, shown, invalid)


def read_jobs(folder: Path, jobs: str, header: str = "", **variables: Json) -> ReadManifest:
    """Write a manifest of these jobs, and read it."""
    path = folder / "m.yaml"
    path.write_text(f"version: 1\n{header}jobs:\n{jobs}", encoding="utf-8")
    return read_manifest(path, **variables)


def read_document(path: Path) -> tuple[tuple[Header, list[Entry]] | None, list[Problem]]:
    """Read the header and the entries of a manifest (None if it can't be read), and its problems."""
    problems: list[Problem] = []
    try:
        document = open_document(path, problems.append)
    except ManifestError as error:
        return None, [*problems, *error.problems]
    header = read_header(document, problems.append, {}, today=TODAY)
    return (header, list(document.entries(problems.append))), problems


def problems_of(path: Path) -> list[str]:
    """Return the problems of a manifest's header and entries; positions name the file without its folder."""
    return [str(problem).replace(f"{path.parent}/", "") for problem in read_document(path)[1]]


def fail(problem: Problem) -> None:
    """Fail the test: no problem was expected."""
    raise AssertionError(str(problem))


def png(width: int, height: int, padding: int = 0) -> bytes:
    """Return a black PNG; with padding it is another file of the same image."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress((b"\0" + bytes(width)) * height)
    text = chunk(b"tEXt", b"note\0" + b"x" * padding)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + text + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
