"""Every fault that the simulator plays, from the wire to the exit code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

from tests.acceptance.mortal import Mortals, mortals
from tests.acceptance.theatre import Theatre, command, lines, playing, runner

MANIFEST = """
version: 1
name: faults
gateway: {{base_url: '{base_url}'}}
limits: {{submit: 200/s, poll: 200/s, in_flight: 100, downloads: 16}}
poll: {{first: 50ms, interval: 100ms, max_interval: 300ms, timeout: {patience}}}
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

SUBMITS = {
    # The fault of the first POST: its job's state, its class, the exit code, and the tasks that were paid for.
    "{fault: reset}": ("uncertain", "uncertain_submit", 4, 1),
    "{fault: reset, created: false}": ("uncertain", "uncertain_submit", 4, 0),
    "{fault: hang, for_s: 3}": ("uncertain", "uncertain_submit", 4, 1),
    "{fault: half}": ("uncertain", "uncertain_submit", 4, 1),
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

MIXED = {
    # By the name of the scenario's rule; a job of any other rule succeeds.
    **dict.fromkeys(
        ["bad request", "invalid request", "too large", "not found"], ("failed", "invalid_request")
    ),
    "forbidden": ("failed", "forbidden"),
    **dict.fromkeys(
        [
            "reset",
            "reset unmade",
            "hang",
            "half an answer",
            "no id",
            "bad gateway",
            "bad gateway unmade",
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
            "failed with text for an address",
            "failed in metadata",
            "failed as text",
            "failed in output",
        ],
        ("failed", "remote_failed"),
    ),
    **dict.fromkeys(["moderation", "moderation chinese"], ("failed", "moderation")),
    "cancelled": ("failed", "remote_cancelled"),
    "expired": ("failed", "remote_expired"),
    "never finishes": ("timed_out", "poll_timeout"),
    "lost": ("failed", "lost"),
    "asset never whole": ("undelivered", "asset_invalid"),
    "last frame not found": ("undelivered", "download_failed"),
}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Theatre, Mortals, Path]]:
    """Serve a rule for each case, told apart by its prompt, and make processes quickly."""
    folder = tmp_path_factory.mktemp("faults")
    rules = "".join(
        f"  - {{name: case {n}, match: {{prompt: 'case {n}, 1.'}}, submit: {fault}}}\n"
        for n, fault in enumerate(SUBMITS)
    )
    _, environ = command()
    with (
        playing(folder, f"version: 1\ngenerate_s: 0.05\nrules:\n{rules}") as theatre,
        mortals(environ) as makers,
    ):
        yield theatre, makers, folder


@pytest.mark.parametrize("fault", SUBMITS)
def test_fault_of_a_post_ends_as_it_should(fault: str, stage: tuple[Theatre, Mortals, Path]) -> None:
    """
    State, class, exit code and what was paid, for each way in which a POST goes wrong; the job beside it is well.
    """
    theatre, makers, folder = stage
    name = f"case {list(SUBMITS).index(fault)}"
    manifest, run_dir = folder / f"{name}.yaml", folder / name
    text = MANIFEST.format(base_url=theatre.base_url, patience="20s", count=2, name=name)
    manifest.write_text(text, encoding="utf-8")

    death = makers.live(manifest, run_dir)

    state, cls, exit_code, paid = SUBMITS[fault]
    line = lines(run_dir)["job-1"]
    paid_by_prompt = Counter(entry["prompt"] for entry in theatre.ledger)
    assert (state, cls if state == "pending" else (line["error"] or {}).get("class")) == (line["status"], cls)
    assert exit_code == death.exit_code
    assert paid == paid_by_prompt[f"{name}, 1."]
    assert paid_by_prompt[f"{name}, 2."] == (0 if lines(run_dir)["job-2"]["status"] == "pending" else 1)


def test_mixed_scenario_ends_with_every_job_in_the_right_state_and_class(tmp_path: Path) -> None:
    """
    All that is known to go wrong, in one run: each job ends as its rule says (once round takes half a minute).
    """
    scenario = yaml.safe_load(
        (files("runner.simulator") / "scenarios" / "mixed.yaml").read_text(encoding="utf-8")
    )
    rules = {rule["match"]["nth"]: rule["name"] for rule in scenario["rules"]}
    # By the prompt rather than by the order of arrival, which is the network's when several are under way.
    scenario["rules"] = [
        {**rule, "name": f"{rule['name']} {nth}", "match": {"prompt": f"mixed, {nth}."}}
        for rule in scenario["rules"]
        for nth in range(rule["match"]["nth"], JOBS + 1, 80)
    ]
    with playing(tmp_path, yaml.safe_dump(scenario, allow_unicode=True)) as theatre:
        manifest = tmp_path / "mixed.yaml"
        text = MANIFEST.format(base_url=theatre.base_url, patience="8s", count=JOBS, name="mixed")
        manifest.write_text(text, encoding="utf-8")
        done = runner("run", manifest, "-o", tmp_path / "out", timeout_s=110)
        accepted = Counter(entry["prompt"] for entry in theatre.ledger)

    found = {
        job_id: (line["status"], (line["error"] or {}).get("class"))
        for job_id, line in lines(tmp_path / "out").items()
    }
    expected = {
        f"job-{n + 1}": MIXED.get(rules.get(n % 80 + 1, ""), ("succeeded", None)) for n in range(JOBS)
    }
    assert 4 == done.returncode, done.stderr
    assert expected == found
    assert max(accepted.values()) == 1
