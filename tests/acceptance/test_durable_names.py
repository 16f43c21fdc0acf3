"""Commands that make files out of a finished run: what has a name has its bytes, and the name stays, if the power goes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.forked_process import ROOT
from tests.acceptance.power_cut import Call, calls, can_trace, traced
from tests.cli.command import runner

MANIFEST = """
version: 1
name: named
jobs:
  - {id: 'job-${n}', repeat: 4, request: {model: seedance-1-5-pro-251215, prompt: 'kitten ${n}', seconds: 4, size: 480p}}
"""
COMMANDS = """
import os, sys
from tests.cli.command import runner
for line in sys.stdin:
    done = runner(*line.split())
    assert 0 == done.exit_code, done.stderr
    os.write(2, b"ended")
"""
ENDED = '"ended", 5) = 5'


def unsafe(trace: Iterable[Call], root: Path) -> Iterator[str]:
    """Yield the names below a folder that lead to bytes not yet synced, or that a command leaves before they are durable."""
    unsynced: set[str] = set()
    names: dict[str, str] = {}
    seconds: dict[str, str] = {}
    for call in trace:
        match call.name.removesuffix("2").removesuffix("at"):
            case "write" if call.text.endswith(ENDED):
                yield from (
                    f"{name}: {above} is not synced" for name, above in names.items() if os.path.exists(name)
                )
                names.clear()
            case "write" | "writev" | "pwrite64" | "sendfile" | "copy_file_range":
                unsynced.add(call.file)
            case "fsync" | "fdatasync":
                unsynced.discard(call.file)
                names = {name: above for name, above in names.items() if above != call.file}
            case "rename" | "link" if call.paths[1].startswith(f"{root}/"):
                old, new = call.paths
                if old in unsynced:
                    yield f"{new}: its bytes are not synced"
                if seconds.get(new) in names:
                    yield f"{new}: was replaced before its second name is durable"
                if call.name.startswith("link"):
                    seconds[old] = new
                # What is in a folder has moved with it.
                names = {_moved(name, old, new): _moved(above, old, new) for name, above in names.items()}
                names[new] = os.path.dirname(new)


def _moved(path: str, old: str, new: str) -> str:
    return new + path.removeprefix(old) if path == old or path.startswith(f"{old}/") else path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run two shards of a manifest, and a run with a journal, of which one video is rejected."""
    folder = tmp_path_factory.mktemp("named")
    (folder / "m.yaml").write_text(MANIFEST)
    (folder / "s.yaml").write_text("{version: 1, generate_s: [0, 0]}")
    for options in (("0/2", folder / "s0"), ("1/2", folder / "s1")):
        done = runner(*simulated(folder), "--shard", *options[:1], "-o", options[1])
        assert 0 == done.exit_code, done.stderr
    done = runner(*simulated(folder), "--journal", (folder / "journal").as_uri(), "-o", folder / "a")
    assert 0 == done.exit_code, done.stderr
    # The simulator's tasks are there for another machine too.
    (folder / "b").mkdir()
    shutil.copy(folder / "a" / "simulator.jsonl", folder / "b")
    verdict = {"job_id": "job-1", "verdict": "reject", "at": "2126-01-01T00:00:00.000Z"}
    for name in ("a", "s0"):
        (folder / name / "verdicts.jsonl").write_text(json.dumps(verdict) + "\n")
    return folder


def simulated(folder: Path) -> list[object]:
    """Return the arguments of a run with the simulator."""
    return ["run", folder / "m.yaml", "--simulate", "--scenario", folder / "s.yaml"]


@pytest.mark.skipif(not can_trace(), reason="needs strace, and the right to use it")
@pytest.mark.slow
def test_every_name_is_durable_and_leads_to_durable_bytes(folder: Path) -> None:
    """Merging, exporting, going on from a journal on another machine, and taking anew what was rejected."""
    commands: list[list[object]] = [
        ["merge", folder / "all", folder / "s0", folder / "s1"],
        ["export", folder / "all", folder / "dataset", "--format", "videofolder"],
        [*simulated(folder), "--journal", (folder / "journal").as_uri(), "-o", folder / "b"],
        ["rerun", folder / "a", "--verdict", "reject", "--simulate", "--scenario", folder / "s.yaml"],
    ]
    trace = folder.parent / "trace"
    subprocess.run(
        traced([sys.executable, "-c", COMMANDS], trace),
        input="\n".join(" ".join(map(str, words)) for words in commands),
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        text=True,
        timeout=100,
        check=True,
    )
    lines = trace.read_text().splitlines()

    assert [] == list(unsafe(calls(lines), folder))
    merged = str(folder / ".all.merging" / "run" / "verdicts.jsonl")
    assert "fsync" == [call.name for call in calls(lines) if call.file == merged][-1]
    named = {call.paths[1] for call in calls(lines) if call.name.startswith(("rename", "link"))}
    for name in (
        "all",
        ".all.merging/run/summary.json",
        "dataset",
        "a/assets/job-1~take1.mp4",
        "b/run.db",
        "b/assets/job-1.mp4",
    ):
        assert str(folder / name) in named, sorted(named)
