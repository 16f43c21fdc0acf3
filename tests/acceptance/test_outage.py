"""A short outage on real sockets."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.acceptance.simulator_process import results_by_id, run_simulator, runner

MANIFEST = """
version: 1
name: outage
gateway: {{base_url: '{base_url}'}}
limits: {{submit: 20/s, poll: 100/s, in_flight: 40}}
poll: {{first: 100ms, interval: 200ms, max_interval: 400ms, timeout: 60s}}
timeouts: {{submit: 2s, poll: 2s}}
jobs:
  - {{id: 'job-${{n}}', repeat: 50, request: {{model: seedance-1-5-pro-251215, prompt: 'kitten ${{n}}', seconds: 4, size: 480p}}}}
"""

SCENARIO = """
version: 1
generate_s: [0.1, 0.5]
outages: [{from_s: 1.5, to_s: 6, answer: bad_gateway}]
"""


def test_outage_leaves_few_jobs_uncertain_and_the_run_recovers(tmp_path: Path) -> None:
    """
    Seconds of 502 in the middle of a run: few jobs are uncertain, all others succeed, none is paid twice.
    """
    with run_simulator(tmp_path, SCENARIO) as simulator:
        manifest = tmp_path / "outage.yaml"
        manifest.write_text(MANIFEST.format(base_url=simulator.base_url), encoding="utf-8")
        done = runner("run", manifest, "-o", tmp_path / "out")
        paid = Counter(entry["prompt"] for entry in simulator.ledger)

    counts = Counter(line["status"] for line in results_by_id(tmp_path / "out").values())
    assert 4 == done.returncode, done.stderr
    assert 1 <= counts["uncertain"] < 10
    assert 50 == counts["uncertain"] + counts["succeeded"]
    assert counts["succeeded"] == len(paid)
    assert 1 == max(paid.values())
