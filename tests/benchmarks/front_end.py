"""Reading, expanding and checking manifests, and runs of a million jobs, each in a process of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks import rig
from tests.benchmarks.rig import Row, ratio

_PARSE = """
import sys, json
from datetime import date
from pathlib import Path
from runner.manifest.loader import load
found = []
manifest = load(Path(sys.argv[1]), found.append, variables={}, today=date(2026, 11, 21))
jobs = sum(1 for _ in manifest.jobs(found.append))
print(json.dumps([jobs, len(found)]))
"""

_CSAFE = """
import sys, json, yaml, jsonschema
document = yaml.load(open(sys.argv[1], encoding="utf-8"), Loader=yaml.CSafeLoader)
schema = json.load(open(sys.argv[2], encoding="utf-8"))
validator = jsonschema.Draft202012Validator(schema)
errors = sum(1 for job in document["jobs"] for _ in validator.iter_errors(job["request"]))
print(json.dumps([len(document["jobs"]), errors]))
"""

_JSON = """
import sys, json
print(json.dumps([sum(1 for line in open(sys.argv[1], encoding="utf-8") if json.loads(line)), 0]))
"""

_SCHEMA = "seedance-1-0-pro-250528"
_FINISHED = Path(__file__).with_name("finished.py")


def yaml_jobs(disk: Path, memory: Path, *, jobs: int, rounds: int) -> Iterator[Row]:
    """Jobs written out in YAML, a third of them in Chinese."""
    most, few = jobs * 10, 1000
    peer, own, small = [], [], []
    for _ in range(rounds):
        peer.append(_run(_CSAFE, most, _yaml(memory, most), _schema(memory)))
        own.append(_run(_PARSE, most, _yaml(memory, most)))
        small.append(_run(_PARSE, few, _yaml(memory, few)) - _run(_PARSE, 1, _yaml(memory, 1)))
    nothing = _run(_PARSE, 1, _yaml(memory, 1))
    yield Row(
        f"read, expand and check {most:,} YAML jobs",
        "CSafeLoader + jsonschema",
        "0.20x",
        "0.13x",
        ratio([a / b for a, b in zip(own, peer, strict=True)], digits=3),
        f"{own[0]:.1f} beside {peer[0]:.1f} CPU s, whole processes",
    )
    yield Row(
        f"its time a job, at {most:,} over at {few:,}",
        "itself",
        "1.3x",
        "1.1x",
        ratio([(a - nothing) / most / (b / few) for a, b in zip(own, small, strict=True)]),
        f"{(own[0] - nothing) / most * 1e6:.0f} us a job",
    )


def jsonl_rows(disk: Path, memory: Path, *, jobs: int, rounds: int) -> Iterator[Row]:
    """A hundred times as many rows of JSONL."""
    most = jobs * 100
    path = rig.manifest(memory, "http://127.0.0.1:9", most, at_once=64)
    rows = memory / f"rows-{most}.jsonl"
    ratios = []
    for _ in range(rounds):
        peer, own = _run(_JSON, most, rows), _run(_PARSE, most, path)
        ratios.append(own / peer)
    yield Row(
        f"{most:,} rows of JSONL: read, expand, check",
        "a json.loads loop",
        "4x",
        "2x",
        ratio(ratios, digits=1),
        f"{own:.1f} beside {peer:.1f} CPU s ({own / most * 1e6:.0f} us a row)",
    )


def million(disk: Path, memory: Path, *, jobs: int, rounds: int) -> Iterator[Row]:
    """Plan and begin a run of a hundred times as many jobs; memory must not follow."""
    yield from _large(disk, memory, jobs, jobs * 100, "120 MB and 1.0x")


def ten_million(disk: Path, memory: Path, *, jobs: int, rounds: int) -> Iterator[Row]:
    """The same with a thousand times as many jobs."""
    yield from _large(disk, memory, jobs, jobs * 1000, "200 MB and 1.2x")


def _large(disk: Path, memory: Path, few: int, most: int, aim: str) -> Iterator[Row]:
    limit = few * 2
    with rig.gateway(rig.video_file(memory / "small.mp4", 10_240)) as server:
        for command in ("plan", "run"):
            peaks, notes = [], []
            for count in (few, most):
                manifest = rig.manifest(memory, server.url, count, at_once=64)
                out = disk / f"{command}-{count}"
                options = [] if command == "plan" else ["--limit", str(min(limit, count))]
                taken = rig.run(["-m", "runner", command, manifest, "-o", out, *options], codes=(0, 4, 5, 6))
                peaks.append(taken.peak_mib)
                notes.append(f"{taken.wall_s:.0f} s, {taken.cpu_s / count * 1e6:.0f} us of CPU a job")
                if command == "run":
                    server.check(min(limit, count), out)
            yield Row(
                f"peak memory, {most:,} jobs from JSONL: {command}"
                + ("" if command == "plan" else f" of the first {limit:,}"),
                f"itself at {few:,}",
                "200 MB and 1.2x",
                aim,
                f"{peaks[1]:.0f} MiB and {peaks[1] / peaks[0]:.2f}x",
                notes[-1],
            )


def finished(disk: Path, memory: Path, *, jobs: int, rounds: int) -> Iterator[Row]:
    """Continue with a run of a hundred times as many jobs that has nothing to do."""
    most = jobs * 100
    manifest = rig.manifest(memory, "http://127.0.0.1:9", most, at_once=64)
    out = disk / f"finished-{most}"
    rig.run([_FINISHED, manifest, out])
    files = rig.run(["-m", "runner", "resume", out])
    again = rig.run(["-m", "runner", "resume", out])
    status = rig.run(["-m", "runner", "status", out])
    yield Row(f"`status` of a finished {most:,}-job run", "-", "1.5 s", "-", f"{status.wall_s:.1f} s")
    from_manifest = rig.run(["-m", "runner", "run", manifest, "--new", "-o", out])
    yield Row(
        f"resume of a finished {most:,}-job run that has nothing to do",
        "-",
        "30 s",
        "5 s",
        f"{again.wall_s:.1f} s",
        f"{again.peak_mib:.0f} MiB; `run` of its manifest {from_manifest.wall_s:.0f} s and "
        f"{from_manifest.peak_mib:.0f} MiB; where its files are missing, resume makes them in {files.wall_s:.0f} s",
    )


def _run(script: str, jobs: int, *arguments: Path) -> float:
    """Run a script, make sure that it read all jobs and found no fault, and give its CPU seconds."""
    taken = rig.run(["-c", script, *arguments])
    if json.loads(taken.stdout) != [jobs, 0]:
        raise rig.Wrong(f"{jobs} jobs were read as {taken.stdout.strip()} (jobs, faults)")
    return taken.cpu_s


def _yaml(memory: Path, jobs: int) -> Path:
    path = memory / f"jobs-{jobs}.yaml"
    if path.exists():
        return path
    with path.open("w", encoding="utf-8") as file:
        file.write("version: 1\nname: benchmark\njobs:\n")
        for number in range(jobs):
            prompt = (
                f"小猫在草地上追蝴蝶，镜头缓缓推近，第 {number} 号"
                if number % 3 == 0
                else (f"a kitten chases a butterfly over the meadow, slow dolly in, number {number}")
            )
            file.write(
                f'  - id: job-{number}\n    request:\n      model: {_SCHEMA}\n      prompt: "{prompt}"\n'
                f"      seconds: '5'\n      size: 720p\n      seed: {number}\n      watermark: false\n"
                f"    metadata: {{shot: {number}, tag: 'take {number % 7}'}}\n"
            )
    return path


def _schema(memory: Path) -> Path:
    from runner.schema.catalog import load_catalog

    path = memory / "schema.json"
    path.write_text(json.dumps(load_catalog().schema("seedance-1").document))
    return path
