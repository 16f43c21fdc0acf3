"""Every fault that the simulator can produce, from the wire to the exit code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

from tests.acceptance.crash_harness import ForkServer, fork_server
from tests.acceptance.simulator_process import (
    SimulatorProcess,
    command_line,
    results_by_id,
    run_simulator,
    runner,
)

MANIFEST = """
version: 1
name: faults
gateway: {{base_url: '{base_url}'}}
limits: {{submit: 200/s, poll: 200/s, in_flight: 100, downloads: 16}}
poll: {{first: 50ms, interval: 100ms, max_interval: 300ms, timeout: {poll_timeout}}}
timeouts: {{submit: 1s, poll: 1s, stall: 1s, unknown_task: 1s}}
retry: {{attempts: 3, base: 50ms, cap: 100ms}}
jobs:
  - id: job-${{n}}
    repeat: {count}
    request:
      model: seedance-1-5-pro-251215
      prompt: '{name}, ${{n}}.'
      seconds: 4
      size: 480p
      return_last_frame: true
"""

SUBMIT_FAULTS = {
    # Fault of the first POST: state of its job, class, exit code, number of tasks that were paid for.
    "{fault: reset}": ("uncertain", "uncertain_submit", 4, 1),
    "{fault: reset, created: false}": ("uncertain", "uncertain_submit", 4, 0),
    "{fault: hang, for_s: 3}": ("uncertain", "uncertain_submit", 4, 1),
    "{fault: partial_answer}": ("uncertain", "uncertain_submit", 4, 1),
    "{fault: bad_gateway, created: true}": ("uncertain", "uncertain_submit", 4, 1),
    "{fault: server_error}": ("uncertain", "uncertain_submit", 4, 0),
    "{fault: unavailable}": ("uncertain", "uncertain_submit", 4, 0),
    "{fault: no_id}": ("uncertain", "uncertain_submit", 4, 1),
    "{fault: html, created: true}": ("uncertain", "uncertain_submit", 4, 1),
    "{fault: empty, created: true}": ("uncertain", "uncertain_submit", 4, 1),
    "{fault: json}": ("uncertain", "uncertain_submit", 4, 0),
    "{fault: redirect, times: always}": ("pending", None, 3, 0),
    "{fault: unauthorized, times: always}": ("pending", None, 3, 0),
    "{fault: token_invalid, times: always}": ("pending", None, 3, 0),
    "{fault: quota, times: always}": ("pending", None, 3, 0),
    "{fault: quota_403, times: always}": ("pending", None, 3, 0),
    "{fault: payment_required, times: always}": ("pending", None, 3, 0),
    "{fault: bad_request, times: always}": ("failed", "invalid_request", 1, 0),
    "{fault: invalid_request, times: always}": ("failed", "invalid_request", 1, 0),
    "{fault: too_large, times: always}": ("failed", "invalid_request", 1, 0),
    "{fault: forbidden, times: always}": ("failed", "forbidden", 1, 0),
    "{fault: no_channel, times: always}": ("failed", "unavailable", 1, 0),
    "{fault: no_channel, times: 2}": ("succeeded", None, 0, 1),
    "{fault: throttled, times: 2}": ("succeeded", None, 0, 1),
    "{fault: throttled_chinese}": ("succeeded", None, 0, 1),
    "{fault: throttled_empty}": ("succeeded", None, 0, 1),
    "{fault: throttled_seconds, after_s: 0.5}": ("succeeded", None, 0, 1),
    "{fault: throttled_ms}": ("succeeded", None, 0, 1),
}

JOBS = 80

MIXED_RESULTS = {
    # By the name of the scenario's rule; jobs of all other rules succeed.
    **dict.fromkeys(
        ["bad request", "invalid request", "too large", "not found"], ("failed", "invalid_request")
    ),
    "forbidden": ("failed", "forbidden"),
    **dict.fromkeys(
        [
            "reset",
            "reset without a task",
            "hang",
            "partial answer",
            "no id",
            "bad gateway",
            "bad gateway without a task",
            "server error",
            "unavailable",
            "submit html",
            "submit empty",
            "submit json",
        ],
        ("uncertain", "uncertain_submit"),
    ),
    **dict.fromkeys(
        [
            "failed",
            "failed with text in the URL",
            "failed in metadata",
            "failed as text",
            "failed in output",
        ],
        ("failed", "remote_failed"),
    ),
    "moderation": ("failed", "moderation"),
    "moderation chinese": ("failed", "output_moderation"),
    "cancelled": ("failed", "remote_cancelled"),
    "expired": ("failed", "remote_expired"),
    "never finishes": ("timed_out", "poll_timeout"),
    "lost": ("failed", "lost"),
    "asset never whole": ("undelivered", "asset_invalid"),
    "last frame not found": ("undelivered", "download_failed"),
}


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SimulatorProcess, ForkServer, Path]]:
    """Serve a rule for each case, selected by its prompt, and start the fork server."""
    folder = tmp_path_factory.mktemp("faults")
    rules = "".join(
        f"  - {{name: case {n}, match: {{prompt: 'case {n}, 1.'}}, submit: {fault}}}\n"
        for n, fault in enumerate(SUBMIT_FAULTS)
    )
    _, environ = command_line()
    with (
        run_simulator(folder, f"version: 1\ngenerate_s: 0.05\nrules:\n{rules}") as simulator,
        fork_server(environ) as server,
    ):
        yield simulator, server, folder


@pytest.mark.parametrize("fault", SUBMIT_FAULTS)
def test_fault_of_a_post(fault: str, harness: tuple[SimulatorProcess, ForkServer, Path]) -> None:
    """
    State, class, exit code and number of paid tasks for each fault of a POST; the other job is not affected.
    """
    simulator, server, folder = harness
    name = f"case {list(SUBMIT_FAULTS).index(fault)}"
    manifest, run_dir = folder / f"{name}.yaml", folder / name
    text = MANIFEST.format(base_url=simulator.base_url, poll_timeout="20s", count=2, name=name)
    manifest.write_text(text, encoding="utf-8")

    actual_exit_code = server.run_once(manifest, run_dir)

    state, cls, exit_code, paid = SUBMIT_FAULTS[fault]
    results = results_by_id(run_dir)
    line = results["job-1"]
    paid_by_prompt = Counter(entry["prompt"] for entry in simulator.ledger)
    assert state == line["status"]
    assert cls == (None if state == "pending" else (line["error"] or {}).get("class"))
    assert exit_code == actual_exit_code
    assert paid == paid_by_prompt[f"{name}, 1."]
    assert (0 if results["job-2"]["status"] == "pending" else 1) == paid_by_prompt[f"{name}, 2."]


def test_every_job_of_the_mixed_scenario_gets_its_state_and_class(tmp_path: Path) -> None:
    """
    All known faults in one run: each job ends in the state of its rule. Takes half a minute.
    """
    scenario = yaml.safe_load(
        (files("runner.simulator") / "scenarios" / "mixed.yaml").read_text(encoding="utf-8")
    )
    rules = {rule["match"]["nth"]: rule["name"] for rule in scenario["rules"]}
    # Selected by prompt, since concurrent requests may arrive in any order.
    scenario["rules"] = [
        {**rule, "name": f"{rule['name']} {nth}", "match": {"prompt": f"mixed, {nth}."}}
        for rule in scenario["rules"]
        for nth in range(rule["match"]["nth"], JOBS + 1, 80)
    ]
    with run_simulator(tmp_path, yaml.safe_dump(scenario, allow_unicode=True)) as simulator:
        manifest = tmp_path / "mixed.yaml"
        text = MANIFEST.format(base_url=simulator.base_url, poll_timeout="8s", count=JOBS, name="mixed")
        manifest.write_text(text, encoding="utf-8")
        done = runner("run", manifest, "-o", tmp_path / "out", timeout_s=110)
        accepted = Counter(entry["prompt"] for entry in simulator.ledger)

    found = {
        job_id: (line["status"], (line["error"] or {}).get("class"))
        for job_id, line in results_by_id(tmp_path / "out").items()
    }
    expected = {
        f"job-{n + 1}": MIXED_RESULTS.get(rules.get(n % 80 + 1, ""), ("succeeded", None)) for n in range(JOBS)
    }
    assert 4 == done.returncode, done.stderr
    assert expected == found
    assert 1 == max(accepted.values())
