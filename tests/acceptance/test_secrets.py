"""Neither the key nor the query string of a signed URL is written anywhere, whatever goes wrong."""

from __future__ import annotations

from pathlib import Path

from tests.acceptance.simulator_process import KEY, results_by_id, run_simulator, runner, write_fast_manifest

JOBS = """
jobs:
  - id: job-${n}
    repeat: 24
    request:
      {model: seedance-1-5-pro-251215, prompt: 'kitten ${n}', seconds: 4, size: 480p, return_last_frame: true}
"""

SCENARIO = """
version: 1
seed: 1
generate_s: [0.1, 0.4]
rules:
  - {name: key echoed, match: {nth: 1, every: 12}, submit: {fault: bad_request, times: always}}
  - {name: no answer, match: {nth: 2, every: 12}, submit: no_id}
  - {name: failed, match: {nth: 3, every: 12}, task: {end: failed, error_in: metadata_url}}
  - {name: html, match: {nth: 4, every: 12}, asset: {fault: html, times: always}}
  - {name: expired, match: {nth: 5, every: 12}, asset: {fault: expired_url, times: 2}}
  - {name: damaged, match: {nth: 6, every: 12}, asset: {fault: no_moov, times: always},
     content: {fault: no_moov, times: always}}
  - {name: elsewhere, match: {nth: 7, every: 12}, asset: {fault: redirect_loop, times: always}}
  - {name: gone frame, match: {nth: 8, every: 12}, last_frame: {fault: not_found, times: always}}
  - {name: poll forbidden, match: {nth: 9, every: 12}, poll: forbidden}
"""


def test_no_secret_is_written_anywhere(tmp_path: Path) -> None:
    """
    After a run with many kinds of faults, no file and no output contains the key or a signature.
    """
    with run_simulator(tmp_path, SCENARIO) as simulator:
        manifest = write_fast_manifest(tmp_path, "secrets", simulator.base_url, JOBS)
        run_dir = tmp_path / "out"
        done = runner("run", manifest, "-o", run_dir)
        printed = runner("status", run_dir).stdout + runner("report", run_dir).stderr

    assert {"succeeded", "failed", "uncertain", "undelivered"} <= {
        line["status"] for line in results_by_id(run_dir).values()
    }
    written = {path.name: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    written["terminal"] = (done.stdout + done.stderr + printed).encode()
    for name, content in written.items():
        for secret in (KEY.encode(), b"Signature=", b"Expires="):
            assert secret not in content, name
