"""Small files that would fill the memory or take for ever, and paths that lead to no file: one clear error each."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_MEMORY_MB = 200
REQUEST = "request: {model: seedance-1-0-pro-250528, prompt: x}"


def _manifest(folder: Path, *lines: str) -> tuple[str, ...]:
    (folder / "m.yaml").write_text("\n".join(["version: 1", *lines]) + "\n", encoding="utf-8")
    return ("validate", "m.yaml")


def _doubling(first: str, template: str, indent: str) -> list[str]:
    """Return variables that each use the one before twice."""
    names = [template.format(f"${{a{number}}}") for number in range(40)]
    return [
        f"{indent}a0: {first}",
        *(f"{indent}a{number}: {value}" for number, value in enumerate(names, start=1)),
    ]


def _vars(folder: Path) -> tuple[str, ...]:
    return _manifest(folder, "vars:", *_doubling("xx", "'{0}{0}'", "  "), f"jobs: [{{id: a, {REQUEST}}}]")


def _lists_in_vars(folder: Path) -> tuple[str, ...]:
    return _manifest(
        folder, "vars:", *_doubling("[1]", "['{0}', '{0}']", "  "), f"jobs: [{{id: a, {REQUEST}}}]"
    )


def _copies_in_vars(folder: Path) -> tuple[str, ...]:
    copies = [f"  b{number}: '${{b{number - 1}}}x'" for number in range(1, 40)]
    first = ["vars:", f"  a: {'x' * 1_000_000}", f"  b0: '{'${a}' * 40}'"]
    return _manifest(folder, *first, *copies, f"jobs: [{{id: a, {REQUEST}}}]")


def _vars_of_a_job(folder: Path) -> tuple[str, ...]:
    own = _doubling("'${s}'", "'{0}{0}'", "      ")
    return _manifest(
        folder, "jobs:", "  - id: a", "    matrix: {s: [xx]}", "    vars:", *own, f"    {REQUEST}"
    )


def _matrix(folder: Path) -> tuple[str, ...]:
    axes = [f"      m{number}: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]" for number in range(13)]
    return _manifest(folder, "jobs:", "  - id: a", "    matrix:", *axes, f"    {REQUEST}")


def _rows(folder: Path, name: str) -> tuple[str, ...]:
    return _manifest(folder, "jobs:", "  - id: a", f"    from: {name}", f"    {REQUEST}")


def _columns(folder: Path) -> tuple[str, ...]:
    cells = [f"c{number}" for number in range(100_000)]
    (folder / "r.csv").write_text(",".join(cells) + "\n" + ",".join(cells) + "\n", encoding="utf-8")
    return _rows(folder, "r.csv")


def _long_line(folder: Path, name: str, start: bytes) -> None:
    with (folder / name).open("wb") as file:
        file.write(start)
        for _ in range(300):
            file.write(b"x" * 1_000_000)


def _long_jsonl_line(folder: Path) -> tuple[str, ...]:
    _long_line(folder, "r.jsonl", b'{"a": "')
    return _rows(folder, "r.jsonl")


def _long_csv_line(folder: Path) -> tuple[str, ...]:
    _long_line(folder, "r.csv", b"a\n")
    return _rows(folder, "r.csv")


def _long_yaml_line(folder: Path) -> tuple[str, ...]:
    _long_line(folder, "m.yaml", b"version: 1\njobs:\n- {id: a, request: {prompt: '")
    return ("validate", "m.yaml")


def _long_batch_line(folder: Path) -> tuple[str, ...]:
    _long_line(folder, "m.jsonl", b'{"custom_id": "')
    return ("validate", "m.jsonl")


def _sparse(folder: Path, name: str, start: bytes = b"") -> None:
    with (folder / name).open("wb") as file:
        file.write(start)
        file.truncate(10**12)


def _sparse_rows(folder: Path) -> tuple[str, ...]:
    _sparse(folder, "r.csv")
    return _rows(folder, "r.csv")


def _sparse_manifest(folder: Path) -> tuple[str, ...]:
    _sparse(folder, "m.yaml", b"version: 1\njobs:\n- {id: a}\n")
    return ("validate", "m.yaml")


def _gzip(folder: Path, block: bytes) -> tuple[str, ...]:
    # Several compressed streams, one after another, are one file.
    (folder / "r.gz").write_bytes(gzip.compress(block) * 2000)
    return ("rerun", "r.gz", "-o", "o")


def _gzip_of_line_feeds(folder: Path) -> tuple[str, ...]:
    return _gzip(folder, b"\n" * 1_000_000)


def _gzip_of_one_line(folder: Path) -> tuple[str, ...]:
    return _gzip(folder, b"x" * 1_000_000)


BOMBS: dict[Callable[[Path], tuple[str, ...]], str] = {
    _vars: "its placeholders would fill in more than 50 MB",
    _lists_in_vars: "its placeholders would fill in more than 50 MB",
    _copies_in_vars: "its placeholders would fill in more than 50 MB",
    _vars_of_a_job: "its placeholders would fill in more than 50 MB",
    _matrix: "this makes 10,000,000,000,000 jobs; an entry makes 10,000,000 at most",
    _columns: "the table has 100,000 columns; 10,000 are allowed",
    _long_jsonl_line: "r.jsonl:1: jobs[0]: the line is longer than 50 MB",
    _long_csv_line: "r.csv:2: jobs[0]: the line is longer than 50 MB",
    _long_yaml_line: "a line is longer than 50 MB",
    _long_batch_line: "the line is longer than 50 MB",
    _sparse_rows: "the line is longer than 50 MB",
    _sparse_manifest: "the character U+0000 is not allowed in YAML",
    _gzip_of_line_feeds: "has more than 100,000 empty lines",
    _gzip_of_one_line: "r.gz:1 is too long to be the line of a job",
}


@pytest.mark.parametrize("make", BOMBS, ids=lambda make: make.__name__.strip("_"))
def test_bombs(make: Callable[[Path], tuple[str, ...]], tmp_path: Path) -> None:
    """What would take gigabytes or hours is one error, in little memory."""
    arguments = make(tmp_path)

    code, output, memory_mb = _run(tmp_path, *arguments)

    assert code == 2, output
    assert BOMBS[make] in output
    assert memory_mb < MAX_MEMORY_MB


@pytest.mark.parametrize("target", ["pipe", "device"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("validate", "bad.yaml"),
        ("validate", "bad"),
        ("validate", "rows.yaml"),
        ("validate", "picture.yaml"),
        ("plan", "m.yaml", "--env-file", "bad"),
        ("run", "m.yaml", "--simulate", "-o", "o", "--env-file", "bad"),
        ("run", "m.yaml", "--simulate", "-o", "o", "--scenario", "bad"),
        ("simulate", "--scenario", "bad"),
        ("rerun", "bad", "-o", "o"),
        ("resolve", "o", "--from", "bad"),
    ],
)
def test_paths_that_lead_to_no_file(arguments: tuple[str, ...], target: str, tmp_path: Path) -> None:
    """A pipe that nobody writes to and a device without an end are errors, wherever a path may be given."""
    _manifest(tmp_path, f"jobs: [{{id: a, {REQUEST}}}]")
    (tmp_path / "rows.yaml").write_text(f"version: 1\njobs: [{{id: a, from: bad.csv, {REQUEST}}}]\n")
    picture = REQUEST.replace("prompt: x", "prompt: x, image: ./bad")
    (tmp_path / "picture.yaml").write_text(f"version: 1\njobs: [{{id: a, {picture}}}]\n")
    for name in ("bad", "bad.yaml", "bad.csv"):
        if target == "pipe":
            os.mkfifo(tmp_path / name)
        else:
            (tmp_path / name).symlink_to("/dev/zero")

    code, output, memory_mb = _run(tmp_path, *arguments)

    assert code == 2, output
    assert "bug" not in output
    assert memory_mb < MAX_MEMORY_MB


_MEASURE = """\
import pathlib, resource, subprocess, sys
ended = subprocess.run([sys.executable, "-m", "runner", *sys.argv[1:]], timeout=60)
pathlib.Path("memory").write_text(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(ended.returncode)
"""
# A process counts the memory of the one that it was forked from, which must therefore be a small one.


def _run(folder: Path, *arguments: str) -> tuple[int, str, float]:
    """Run a command, and return its exit code, its output, and the most memory that it had, in MB."""
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, int((folder / "memory").read_text()) / 1024
