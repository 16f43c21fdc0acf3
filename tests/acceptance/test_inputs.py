"""Local inputs on their way to models that take only addresses: through an object store, and the asset library."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from itertools import count
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

import pytest

from runner.api.doctor import CheckVerdict, check_inputs
from runner.api.plan import plan, plan_json
from runner.core.settings import Inputs
from runner.core.units import format_size
from runner.objects import open_store
from tests.acceptance.crash_harness import ForkServer, KillPoint, fork_server
from tests.acceptance.recording_gateway import Recorder
from tests.acceptance.simulator_process import (
    KEY,
    command_line,
    results_by_id,
    run_simulator,
    runner,
)
from tests.manifest.helpers import png
from tests.objects.s3 import FaultyS3, s3_server

FRAMES = 6
SIDES = count(400, 10)
"""Each manifest has frames of its own."""
SCENARIO = """
version: 1
generate_s: [0.02, 0.1]
library: {job_s: 0.1, review_s: 0.2, refuse: '*face*'}
"""
HEADER = """
version: 1
name: inputs
gateway: {{base_url: '{base_url}'}}
limits: {{submit: 100/s, poll: 200/s, in_flight: 8, upload: 100/s, uploads: {at_once}}}
poll: {{first: 30ms, interval: 30ms, max_interval: 60ms, timeout: 20m}}
inputs: {inputs}
jobs:
"""
SEEDANCE = """\
  - id: seedance-{n}
    request:
      model: dreamina-seedance-2-0-260128
      media: [{{type: text, text: 'Frame {n}.'}}, {{type: first_frame, url: {frame}}}]
"""
WAN = """\
  - id: wan-{n}
    request: {{model: wan2.7-i2v, prompt: 'Frame {n}.', media: [{{type: first_frame, url: {frame}}}]}}
"""
TEXT = """\
  - id: text
    request:
      model: dreamina-seedance-2-0-260128
      media: [{{type: text, text: x}}, {{type: first_frame, url: 'asset://{name}'}}]
"""


@dataclass(frozen=True, slots=True)
class InputHarness:
    """A gateway, an S3 server with its variables, and the server that forks processes which know both."""

    gateway: Recorder
    s3: FaultyS3
    environ: Mapping[str, str]
    fork_server: ForkServer


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InputHarness]:
    """One of each for all tests of this module."""
    folder = tmp_path_factory.mktemp("inputs")
    with run_simulator(folder, SCENARIO) as simulator, s3_server() as (s3, environ):
        gateway = Recorder(simulator.base_url)
        thread = Thread(target=gateway.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        _, own = command_line(**environ)
        with fork_server(own) as forks:
            yield InputHarness(gateway, s3, environ, forks)
        gateway.shutdown()
        thread.join()
        gateway.server_close()


def write_jobs(
    folder: Path, harness: InputHarness, inputs: str, *templates: str, frames: int = FRAMES, at_once: int = 1
) -> Path:
    """Write frames, and a manifest with a job for each frame and template, in an order that mixes them."""
    text = HEADER.format(base_url=harness.gateway.base_url, inputs=inputs, at_once=at_once)
    first = next(SIDES)
    for n in range(frames):
        (folder / f"frame-{n}.png").write_bytes(png(first + n, 900))
        for template in templates:
            text += template.format(n=f"{folder.name}-{n}", frame=f"./frame-{n}.png")
    path = folder / "inputs.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def uploads(run_dir: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(run_dir / "run.db")) as connection:
        return connection.execute("SELECT digest, state FROM uploads").fetchall()


def addresses_of(harness: InputHarness, folder: Path) -> list[str]:
    """Return the addresses of the media in all submissions of a test."""
    return [body["media"][-1]["url"] for body in harness.gateway.sent if folder.name in json.dumps(body)]


@pytest.mark.parametrize("nth", [3, *(pytest.param(nth, marks=pytest.mark.extended) for nth in (1, 2, 4, 5))])
def test_a_kill_in_the_middle_of_uploads(harness: InputHarness, tmp_path: Path, nth: int) -> None:
    """
    A dozen Wan and Seedance jobs of six frames: a kill loses no upload that is durable, each content is stored once,
    nothing is paid for before all are there, and every address outlives the job's patience.
    """
    harness.s3.reset()
    manifest = write_jobs(
        tmp_path, harness, f"{{upload: 's3://videos/{tmp_path.name}', expires: 10m}}", WAN, SEEDANCE
    )
    run_dir = tmp_path / "out"

    assert harness.fork_server.run_once(manifest, run_dir, kill_at=KillPoint("commit", "after", nth)) is None
    before = uploads(run_dir)
    assert 0 < len(before) < FRAMES
    assert [] == addresses_of(harness, tmp_path)

    assert 0 == harness.fork_server.run_once(manifest, run_dir)
    puts = Counter(path for method, path in harness.s3.requests if method == "PUT")
    names = {sha256((tmp_path / f"frame-{n}.png").read_bytes()).hexdigest() for n in range(FRAMES)}
    assert {f"/videos/{tmp_path.name}/{name}.png": 1 for name in names} == puts
    assert {(name, "ready") for name in names} == set(uploads(run_dir))
    addresses = addresses_of(harness, tmp_path)
    assert 2 * FRAMES == len(addresses)
    for address in addresses:
        assert int(parse_qs(urlsplit(address).query)["X-Amz-Expires"][0]) >= 1200 + 120
    with urlopen(addresses[0], timeout=10) as answer:
        assert sha256(answer.read()).hexdigest() in names
        assert "image/png" == answer.headers["Content-Type"]
    check_no_signature(run_dir)


def check_no_signature(run_dir: Path) -> None:
    """No signed address, and no credential, is in any file; the source and the digest of each input are."""
    for path in run_dir.rglob("*"):
        if path.is_file():
            assert b"X-Amz-Signature" not in path.read_bytes(), path
    for result in results_by_id(run_dir).values():
        text = result["request"]["media"][-1]["url"]
        assert "sha256=" in text
        assert ";source=/" in text


def test_a_public_address(harness: InputHarness, tmp_path: Path) -> None:
    """With `public_url`, the address is that of the bucket with the prefix and the name, and another run uploads nothing."""
    harness.s3.reset()
    inputs = f"{{upload: 's3://videos/{tmp_path.name}', public_url: 'https://cdn.example.com/a'}}"
    manifest = write_jobs(tmp_path, harness, inputs, WAN, frames=2)

    assert 0 == harness.fork_server.run_once(manifest, tmp_path / "out")
    names = [sha256((tmp_path / f"frame-{n}.png").read_bytes()).hexdigest() for n in range(2)]
    addresses = sorted(addresses_of(harness, tmp_path))
    assert sorted(f"https://cdn.example.com/a/{tmp_path.name}/{name}.png" for name in names) == addresses
    copy = tmp_path / "copy.yaml"
    copy.write_bytes(manifest.read_bytes())
    assert 0 == harness.fork_server.run_once(copy, tmp_path / "other")
    assert 2 == [method for method, _ in harness.s3.requests].count("PUT")


@pytest.mark.parametrize(
    ("target", "fault", "expected"),
    [
        ("s3://videos/x", "403", "s3://videos/x refuses the credentials (ExpiredToken"),
        ("s3://absent/x", None, "the bucket of s3://absent/x does not exist"),
        pytest.param(
            "s3://videos/x", "endpoint", "s3://videos/x can't be reached", marks=pytest.mark.extended
        ),
    ],
)
def test_a_target_that_takes_nothing(
    harness: InputHarness, tmp_path: Path, target: str, fault: str | None, expected: str
) -> None:
    """A target without rights, one that does not exist or is away stops the run before anything is paid."""
    harness.s3.reset()
    harness.s3.fault = lambda method, path: "403" if fault == "403" else None
    environ = dict(harness.environ)
    if fault == "endpoint":
        environ["AWS_ENDPOINT_URL"] = "http://127.0.0.1:1"
    manifest = write_jobs(tmp_path, harness, f"{{upload: '{target}'}}", WAN, frames=2)
    with manifest.open("a", encoding="utf-8") as file:
        file.write(TEXT.format(name=tmp_path.name))

    stopped = runner("run", manifest, "-o", tmp_path / "out", timeout_s=60, **environ)

    assert 3 == stopped.returncode, stopped.stderr
    assert f"inputs can't be uploaded: {expected}" in stopped.stderr
    assert [] == addresses_of(harness, tmp_path)
    harness.s3.reset()
    if fault is not None:
        assert 0 == runner("resume", tmp_path / "out", timeout_s=60, **harness.environ).returncode
        assert 3 == len(addresses_of(harness, tmp_path))


def test_a_file_that_changed_fails_its_jobs_alone(harness: InputHarness, tmp_path: Path) -> None:
    """A file that is not what was checked is not uploaded; its job fails, and the others run."""
    harness.s3.reset()
    manifest = write_jobs(tmp_path, harness, f"{{upload: 's3://videos/{tmp_path.name}'}}", WAN, frames=3)
    run_dir = tmp_path / "out"
    harness.s3.fault = lambda method, path: "403"
    assert 3 == harness.fork_server.run_once(manifest, run_dir)
    harness.s3.reset()
    (tmp_path / "frame-1.png").write_bytes(png(next(SIDES), 902))

    assert 1 == runner("resume", run_dir, timeout_s=60, **harness.environ).returncode

    errors = {job: result["error"] for job, result in results_by_id(run_dir).items() if result["error"]}
    assert [f"wan-{tmp_path.name}-1"] == list(errors)
    assert "frame-1.png has changed since it was checked" in errors[f"wan-{tmp_path.name}-1"]["message"]
    assert 2 == len(addresses_of(harness, tmp_path))


def test_plan_names_the_uploads(harness: InputHarness, tmp_path: Path) -> None:
    """`plan` says how many files would be uploaded, each content once, and how large they are."""
    inputs = f"{{upload: 's3://videos/{tmp_path.name}'}}"
    manifest = write_jobs(tmp_path, harness, inputs, WAN, SEEDANCE, frames=3)
    size = sum(path.stat().st_size for path in tmp_path.glob("*.png"))

    planned = plan_json(plan(manifest, output=tmp_path / "out"))
    shown = runner("plan", manifest, "-o", tmp_path / "out").stdout

    assert {"files": 3, "bytes": size} == planned["uploads"]
    assert f"upload: 3 files ({format_size(size)}) to s3://videos/{tmp_path.name}" in shown
    assert 0 == harness.fork_server.run_once(manifest, tmp_path / "out")
    planned = plan_json(plan(manifest, output=tmp_path / "out"))
    assert {"files": 0, "bytes": 0} == planned["uploads"]


@pytest.mark.parametrize(
    "kill_at",
    [
        None,
        KillPoint("commit", "after", 3),
        *(
            pytest.param(KillPoint("commit", when, nth), marks=pytest.mark.extended)
            for when in ("before", "after")
            for nth in (2, 5, 8)
        ),
    ],
)
def test_the_asset_library(harness: InputHarness, tmp_path: Path, kill_at: KillPoint | None) -> None:
    """
    A dozen Seedance jobs by the vendor's library: upload, task, review; a refused file fails its jobs before anything
    is paid for, and after a kill nothing is uploaded again.
    """
    manifest = write_jobs(
        tmp_path,
        harness,
        "{upload: powertokens}",
        SEEDANCE,
        SEEDANCE.replace("seedance-{n}", "twin-{n}").replace("Frame", "Twin"),
    )
    (tmp_path / "a face.png").write_bytes(png(next(SIDES), 901))
    with manifest.open("a", encoding="utf-8") as file:
        file.write(SEEDANCE.format(n=f"{tmp_path.name}-face", frame="'./a face.png'"))
    run_dir = tmp_path / "out"

    before = uploaded(harness)
    if kill_at is not None:
        assert harness.fork_server.run_once(manifest, run_dir, kill_at=kill_at) is None
        assert [] == addresses_of(harness, tmp_path)
    assert 1 == harness.fork_server.run_once(manifest, run_dir)

    assert FRAMES + 1 == uploaded(harness) - before
    results = results_by_id(run_dir)
    face = results.pop(f"seedance-{tmp_path.name}-face")
    assert ("failed", "moderation") == (face["status"], face["error"]["class"])
    assert "refused" in face["error"]["message"]
    assert "it was refused by the review" in face["error"]["message"]
    assert [] == face["attempts"]
    assert {"succeeded"} == {result["status"] for result in results.values()}
    addresses = Counter(addresses_of(harness, tmp_path))
    assert FRAMES == len(addresses)
    assert {2} == set(addresses.values())
    assert all(address.startswith("asset://asset-") for address in addresses)


def uploaded(harness: InputHarness) -> int:
    """Count the uploads that the simulator's library took."""
    return harness.gateway.paths.count("POST /v1/asset/upload")


def test_the_library_is_not_for_wan(harness: InputHarness, tmp_path: Path) -> None:
    """`asset://` is for Seedance 2: a local file of another model is an error that says how it can be sent."""
    manifest = write_jobs(tmp_path, harness, "{upload: powertokens}", WAN, frames=1)

    refused = runner("validate", manifest)

    assert 2 == refused.returncode
    assert "wan2.7-i2v takes only public URLs here" in refused.stdout + refused.stderr
    assert "upload: s3://BUCKET/PREFIX" in refused.stdout + refused.stderr


@pytest.mark.parametrize(
    ("inputs", "environ", "expected"),
    [
        ("{upload: 's3://videos/x'}", {}, "local files can be uploaded to s3://videos/x"),
        ("{upload: 's3://absent/x'}", {}, "the bucket of s3://absent/x does not exist"),
        ("{upload: powertokens}", {}, "local files can be uploaded to powertokens"),
        (
            "{upload: powertokens}",
            {"POWERTOKENS_API_KEY": "sk-wrong-0123456789abcdefghij"},
            "the asset library does not take files: HTTP 401",
        ),
    ],
)
def test_doctor_tries_the_target(
    harness: InputHarness, tmp_path: Path, inputs: str, environ: dict[str, str], expected: str
) -> None:
    """`doctor` writes a small object and deletes it, or asks the library for its groups."""
    harness.s3.reset()
    settings = Inputs(upload=inputs.removeprefix("{upload: ").strip("'}"))
    key = environ.get("POWERTOKENS_API_KEY", KEY)

    check = check_inputs(settings, harness.gateway.base_url, key, harness.environ)

    assert expected in check.message
    assert ("can be uploaded" in expected) == (check.verdict is CheckVerdict.OK)
    if check.verdict is CheckVerdict.OK and not settings.is_library:
        assert "PUT" == harness.s3.requests[0][0]
        assert [] == [
            name for name in open_store("s3://videos", harness.environ).list() if "doctor" in str(name)
        ]


@pytest.mark.extended
def test_a_simulated_run_uploads_nothing(harness: InputHarness, tmp_path: Path) -> None:
    """`--simulate` needs no bucket, no extra and no credentials."""
    harness.s3.reset()
    manifest = write_jobs(tmp_path, harness, "{upload: 's3://absent/x'}", WAN, frames=1)

    assert (
        0
        == runner(
            "run", manifest, "--simulate", "-o", tmp_path / "out", timeout_s=60, **harness.environ
        ).returncode
    )
    assert [] == harness.s3.requests


def test_a_rerun_from_results_knows_no_target(harness: InputHarness, tmp_path: Path) -> None:
    """Results name the file and its digest, not where to upload it: such a job is not submitted."""
    manifest = write_jobs(tmp_path, harness, f"{{upload: 's3://videos/{tmp_path.name}'}}", WAN, frames=1)
    harness.s3.reset()
    harness.s3.fault = lambda method, path: "403"
    assert 3 == harness.fork_server.run_once(manifest, tmp_path / "out")
    harness.s3.reset()
    results = tmp_path / "results.jsonl"
    results.write_bytes((tmp_path / "out" / "results.jsonl").read_bytes())

    rerun = runner("rerun", results, "--base-url", harness.gateway.base_url)

    assert "its file must be uploaded, and results do not say where" in rerun.stderr
    assert [] == addresses_of(harness, tmp_path)


def test_a_limit_holds_for_uploads(harness: InputHarness, tmp_path: Path) -> None:
    """With `--limit`, only the files of the jobs that are submitted are uploaded."""
    harness.s3.reset()
    manifest = write_jobs(tmp_path, harness, f"{{upload: 's3://videos/{tmp_path.name}'}}", WAN, frames=4)

    limited = runner("run", manifest, "-o", tmp_path / "out", "--limit", "2", timeout_s=60, **harness.environ)

    assert 6 == limited.returncode, limited.stderr
    assert 2 == [method for method, _ in harness.s3.requests].count("PUT")
    assert 2 == len(addresses_of(harness, tmp_path))
