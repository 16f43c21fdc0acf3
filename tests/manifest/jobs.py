"""What the tests of jobs read manifests with."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from runner.core.model import JobSpec, Json
from runner.manifest.loader import Manifest, ProblemCollector, load

SEEDANCE = "seedance-1-0-pro-250528"


@dataclass(frozen=True)
class Read:
    """A manifest that was read to its end."""

    manifest: Manifest
    jobs: list[JobSpec]
    problems: list[str]
    refused: list[tuple[JobSpec, str]]

    @property
    def ids(self) -> list[str]:
        """Every job's id, in order."""
        return [job.job_id for job in self.jobs]

    @property
    def requests(self) -> list[dict[str, Json]]:
        """Every job's request, in order."""
        return [dict(job.request) for job in self.jobs]


def read(path: Path, *, is_strict: bool = False, **variables: Json) -> Read:
    """Read a manifest; positions name files without their folder."""
    problems = ProblemCollector()
    refused: list[tuple[JobSpec, str]] = []
    manifest = load(path, problems, variables=variables, today=date(2026, 11, 21), is_strict=is_strict)
    jobs = list(manifest.jobs(problems, refuse=lambda job, why: refused.append((job, why))))
    return Read(manifest, jobs, [str(one).replace(f"{path.parent}/", "") for one in problems.problems], refused)


def read_text(folder: Path, jobs: str, header: str = "", **variables: Json) -> Read:
    """Write a manifest of these jobs, and read it."""
    path = folder / "m.yaml"
    path.write_text(f"version: 1\n{header}jobs:\n{jobs}", encoding="utf-8")
    return read(path, **variables)


def png(width: int, height: int, padding: int = 0) -> bytes:
    """Draw a black PNG; padding makes it another file of the same picture."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress((b"\0" + bytes(width)) * height)
    text = chunk(b"tEXt", b"note\0" + b"x" * padding)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + text + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
