"""Verdicts are durable one by one, and survive what else happens to their file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from runner.core.model import Attempt
from runner.results.verdicts import VerdictsWriter, known_verdicts, read_verdicts
from tests.acceptance.power_cut import can_trace
from tests.results.records import succeeded

AT = 1_795_226_401.25


def test_lines(tmp_path: Path) -> None:
    """A line has the job, the verdict and the time in UTC; the last line of a job counts."""
    with VerdictsWriter(tmp_path) as writer:
        writer.append("小猫 1", "keep", at=AT)
        writer.append("小猫 1", "reject", at=AT)

    lines = [
        json.loads(line) for line in (tmp_path / "verdicts.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert {"job_id": "小猫 1", "verdict": "keep", "at": "2026-11-21T02:00:01.250Z"} == lines[0]
    assert {"小猫 1": "reject"} == read_verdicts(tmp_path / "verdicts.jsonl")


def test_incomplete_line_is_removed(tmp_path: Path) -> None:
    """What a power cut left of a line does not spoil the next one."""
    (tmp_path / "verdicts.jsonl").write_text('{"job_id": "a", "verdict": "keep"}\n{"job_id": "b", "ver')

    with VerdictsWriter(tmp_path) as writer:
        writer.append("c", "keep", at=AT)

    assert {"a": "keep", "c": "keep"} == read_verdicts(tmp_path / "verdicts.jsonl")


def test_links_are_not_followed(tmp_path: Path) -> None:
    """A link in a foreign directory leads to no file that is written."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "verdicts.jsonl").symlink_to(victim)

    with pytest.raises(OSError, match="symbolic link"):
        VerdictsWriter(tmp_path)

    assert "mine" == victim.read_text()


def test_a_verdict_is_on_a_take(tmp_path: Path) -> None:
    """What was said of a video does not count for the one that took its place."""
    first, second = Attempt(1, AT, "accepted", "t1", 200), Attempt(2, AT + 500, "accepted", "t2", 200)
    once = succeeded("sky", attempts=(first,))
    twice = succeeded("sky", attempts=(first, second), submitted_at=AT + 500)
    cases = {AT - 9: ("reject", None), AT + 200: ("reject", None), AT + 700: ("reject", "reject")}

    found = {}
    for at in cases:
        with VerdictsWriter(tmp_path) as writer:
            writer.append("sky", "reject", at=at)
        verdicts = known_verdicts(tmp_path)
        found[at] = (verdicts.of(once), verdicts.of(twice))
    (tmp_path / "verdicts.jsonl").write_text('{"job_id": "sky", "verdict": "keep"}\n')
    undated = known_verdicts(tmp_path)

    assert cases == found
    checked = succeeded("other", verdict={"value": "reject", "by": "checks", "why": "black"})
    assert "reject" == undated.of(checked)
    undated["other"] = "keep"
    assert "keep" == undated.of(checked)
    del undated["other"]
    assert ("keep", None) == (undated.of(twice), undated.of(succeeded("other")))


def test_unreadable_verdicts_are_none(tmp_path: Path) -> None:
    """A report does not fail because of them."""
    assert {} == known_verdicts(tmp_path)
    (tmp_path / "verdicts.jsonl").write_text("?\n")
    assert {} == known_verdicts(tmp_path)


_APPEND = """
import os, sys
from pathlib import Path
from runner.core.model import Attempt
from runner.results.verdicts import VerdictsWriter
with VerdictsWriter(Path(sys.argv[1])) as writer:
    writer.append("a", "keep", at=0.0)
    os.write(1, b"appended")
"""


@pytest.mark.skipif(not can_trace(), reason="needs strace")
def test_a_verdict_is_durable_when_it_is_saved(tmp_path: Path) -> None:
    """The file and its name are synced before the caller hears that the verdict is saved."""
    trace = tmp_path / "trace"
    subprocess.run(
        [
            "strace",
            "-f",
            "-y",
            "-e",
            "trace=write,fsync",
            "-o",
            trace,
            sys.executable,
            "-c",
            _APPEND,
            tmp_path,
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )

    calls = trace.read_text().splitlines()
    written = next(n for n, call in enumerate(calls) if "write(" in call and "verdicts.jsonl" in call)
    told = next(n for n, call in enumerate(calls) if "appended" in call)
    assert any("fsync(" in call and "verdicts.jsonl" in call for call in calls[written:told])
    assert any("fsync(" in call and f"<{tmp_path}>" in call for call in calls[:told])
