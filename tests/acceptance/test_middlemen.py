"""Real proxies and limiters between the program and the gateway: nginx, HAProxy and Squid, where they are installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.acceptance.simulator_process import SimulatorProcess, results_by_id, run_simulator, runner

JOBS = int(os.environ.get("MIDDLEMEN_JOBS", "60"))
"""Of the test of stale connections, at one a second."""
_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin"))
_READY_WITHIN_S = 20.0

MANIFEST = """
version: 1
name: middlemen
gateway: {{base_url: '{base_url}'}}
limits: {{submit: {rate}, poll: 50/s, in_flight: 100, downloads: 8}}
poll: {{first: 300ms, interval: 300ms, max_interval: 1s, timeout: 1m}}
jobs:
  - id: job-${{n}}
    repeat: {jobs}
    request: {{model: seedance-1-5-pro-251215, prompt: 'job ${{n}}', seconds: 4, size: 480p}}
"""

NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  map $request_method $post {{ POST all; default ''; }}
  limit_req_zone $post zone=submissions:1m rate=30r/m;
  server {{
    listen 127.0.0.1:{port};
    location / {{ limit_req zone=submissions; proxy_pass {upstream}; }}
  }}
}}
"""

HAPROXY = """
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout http-keep-alive 1s
listen edge
  bind 127.0.0.1:{port}
  server gateway {host}
"""

SQUID = """
http_port 127.0.0.1:{port}
http_access allow all
cache deny all
hosts_file {folder}/hosts
pid_filename {folder}/squid.pid
access_log stdio:{folder}/access.log
cache_log {folder}/cache.log
coredump_dir {folder}
shutdown_lifetime 0 seconds
"""

GATEWAY_ONLY = """
version: 1
generate_s: 0.2
rules: [{name: only the gateway has the videos, task: {url: nowhere}}]
"""

pytestmark = pytest.mark.extended


def needs(program: str) -> pytest.MarkDecorator:
    """Skip a test where a program is not installed."""
    return pytest.mark.skipif(shutil.which(program, path=_PATH) is None, reason=f"needs {program}")


def free_port() -> int:
    """Return a port of this machine that nobody uses now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def running(program: str, options: Sequence[str | Path], port: int) -> Iterator[None]:
    """Run a program that listens at a port for the length of a block."""
    path = shutil.which(program, path=_PATH)
    assert path is not None
    with subprocess.Popen(
        [path, *map(str, options)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            deadline = time.monotonic() + _READY_WITHIN_S
            while True:
                assert process.poll() is None, f"{program} ended with {process.returncode}"
                assert time.monotonic() < deadline, f"{program} did not listen"
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    time.sleep(0.02)
            yield
        finally:
            process.kill()


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[SimulatorProcess]:
    """Start a gateway."""
    with run_simulator(tmp_path, "version: 1\ngenerate_s: 0.2\n") as process:
        yield process


def run_jobs(
    folder: Path, simulator: SimulatorProcess, base_url: str, *, jobs: int, rate: str, **variables: str
) -> Counter[str]:
    """Run a manifest to its end, check that nothing was paid twice, and count the states of its jobs."""
    manifest = folder / "middlemen.yaml"
    manifest.write_text(MANIFEST.format(base_url=base_url, jobs=jobs, rate=rate), encoding="utf-8")
    done = runner("run", manifest, "-o", folder / "out", timeout_s=1100, **variables)
    paid = Counter(entry["prompt"] for entry in simulator.ledger)
    assert {} == {prompt: count for prompt, count in paid.items() if count > 1}
    assert done.returncode in (0, 4), done.stderr
    return Counter(line["status"] for line in results_by_id(folder / "out").values())


@needs("nginx")
@pytest.mark.parametrize(("jobs", "rate", "most"), [(60, "1/s", 6), (100, "10/s", 8)])
def test_limiter_of_nginx(
    jobs: int, rate: str, most: int, simulator: SimulatorProcess, tmp_path: Path
) -> None:
    """
    `limit_req` answers 503 to what is too fast: few jobs are uncertain, and all others have their videos.
    """
    port = free_port()
    config = tmp_path / "nginx.conf"
    config.write_text(NGINX.format(folder=tmp_path, port=port, upstream=simulator.base_url))

    with running("nginx", ["-c", config, "-p", tmp_path], port):
        states = run_jobs(tmp_path, simulator, f"http://127.0.0.1:{port}", jobs=jobs, rate=rate)

    print(f"{jobs} jobs at {rate}: {dict(states)}")
    assert states["uncertain"] <= most
    assert jobs == states["uncertain"] + states["succeeded"]


@needs("haproxy")
def test_edge_that_closes_idle_connections_after_a_second(
    simulator: SimulatorProcess, tmp_path: Path
) -> None:
    """
    At one submission a second, just when HAProxy closes the connection of the last one, no job is uncertain.
    """
    port = free_port()
    config = tmp_path / "haproxy.cfg"
    config.write_text(HAPROXY.format(port=port, host=urlsplit(simulator.base_url).netloc))

    with running("haproxy", ["-db", "-f", config], port):
        states = run_jobs(tmp_path, simulator, f"http://127.0.0.1:{port}", jobs=JOBS, rate="1/s")

    assert {"succeeded": JOBS} == states


@needs("squid")
def test_squid_is_the_only_way_out(tmp_path: Path) -> None:
    """
    Where only the proxy knows the gateway's name, every video is downloaded all the same, and `doctor` is content.
    """
    port = free_port()
    proxy = {"http_proxy": f"http://127.0.0.1:{port}"}
    # A folder that the user which Squid changes to can enter.
    with tempfile.TemporaryDirectory(dir="/tmp") as name, run_simulator(tmp_path, GATEWAY_ONLY) as simulator:
        folder, gateway = Path(name), f"http://gateway.test:{urlsplit(simulator.base_url).port}"
        folder.chmod(0o777)
        (folder / "hosts").write_text("127.0.0.1 gateway.test\n")
        (folder / "squid.conf").write_text(SQUID.format(folder=folder, port=port))
        with running("squid", ["-N", "-f", folder / "squid.conf"], port):
            states = run_jobs(tmp_path, simulator, gateway, jobs=20, rate="20/s", **proxy)
            doctor = runner("doctor", tmp_path / "middlemen.yaml", timeout_s=60, **proxy)
        requests = (folder / "access.log").read_text()

    assert {"succeeded": 20} == states
    assert 0 == doctor.returncode, doctor.stdout + doctor.stderr
    assert 20 <= requests.count("/content")
