"""Budgets on the command line: what is refused, where it stops, and where the cost is shown."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from jsonschema import Draft202012Validator

from runner.api.state_dir import runs_of
from runner.schema.catalog import load_catalog
from tests.cli.command import CommandResult, runner

SCENARIO = """\
version: 1
generate_s: [0.01, 0.02]
rules:
  - {match: {prompt: '*fails*'}, task: {end: failed}}
  - {match: {prompt: '*is lost*'}, submit: reset}
"""
PRICES = "{version: 1, checked: 2026-11-20, currency: USD, prices: [{model: wan2.7-t2v, unit: second, size: {720p: 0.05}}]}"
HEAD = """\
version: 1
name: paid
limits: {submit: 100/s}
"""
JOBS = """\
defaults: {request: {model: wan2.7-t2v, size: 720p, seconds: 4}, metadata: {split: train}}
jobs:
  - {id: first, request: {prompt: A kitten}}
  - {id: second, request: {prompt: A kitten that fails}, metadata: {split: test}}
  - {id: third, request: {prompt: A kitten that is lost}}
  - {id: fourth, request: {prompt: Two kittens}}
  - {id: long, request: {prompt: A kitten for long, seconds: 15}}
  - {id: short, request: {prompt: A kitten for short, seconds: 2}}
"""


def manifest(head: str, jobs: str = JOBS) -> Path:
    """Write a manifest with these keys."""
    path = Path("paid.yaml")
    path.write_text(f"{HEAD}{head}\n{jobs}", encoding="utf-8")
    return path


def simulate(head: str, *options: object) -> CommandResult:
    """Run a manifest with these keys against the simulator."""
    Path("scenario.yaml").write_text(SCENARIO, encoding="utf-8")
    return runner("run", manifest(head), "--simulate", "--scenario", "scenario.yaml", *options)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


BAD_KEYS = {
    "budget: {run: -5 USD}": "budget.run: '-5 USD' is not an amount of money",
    "budget: {run: 1e9 USD}": "budget.run: '1e9 USD' is not an amount of money",
    "budget: {run: 9999999999 USD}": "budget.run: '9999999999 USD' is not an amount of money",
    "budget: {run: NaN USD}": "budget.run: 'NaN USD' is not an amount of money",
    "budget: {run: 50}": "budget.run: 50 is not an amount of money",
    "budget: {run: '50'}": "budget.run: '50' has no currency",
    "budget: {run: 50 USD, day: 20 EUR}": "budget.day: 20.00 EUR has another currency than run",
    f"prices: {PRICES}\nbudget: {{day: 20 EUR}}": "budget.day: 20.00 EUR has another currency than the prices, USD",
    "budget: {failed: maybe}": "budget.failed: 'maybe' is not allowed",
    "budget: {runs: 5 USD}": "did you mean 'run'?",
    "budget: {unknown: none}": "budget.unknown: 'none' is not an amount of money",
    "canary: {jobs: 3, succeed: 4}": "canary.succeed: 4 of 3 jobs can't succeed",
    "canary: {jobs: 0}": "canary.jobs: 0 is not allowed",
}


@pytest.mark.parametrize("head", BAD_KEYS)
def test_bad_budgets(head: str) -> None:
    """Each is an error with its place before anything is sent."""
    result = runner("validate", manifest(head))

    assert 2 == result.exit_code
    assert BAD_KEYS[head] in result.stdout


@pytest.mark.parametrize(
    ("head", "options", "words"),
    [
        (
            "budget: {run: 5 USD}",
            [],
            "there is a budget, and 6 jobs have no known price: no table has a price of wan2.7-t2v",
        ),
        ("", ["--max-cost", "5"], "--max-cost counts prices, and 6 jobs have no known price"),
        ("", ["--max-cost", "5"], "hint: bound the jobs by their number instead, with --limit"),
        (f"prices: {PRICES}", ["--max-cost", "5 EUR"], "priced in USD, and the budget is in EUR"),
        (
            f"prices: {PRICES}\nbudget: {{run: 5 USD}}",
            ["--max-cost", "5 EUR"],
            "another currency than the budget",
        ),
        ("", ["--max-cost", "-5"], "not an amount"),
        ("", ["--max-cost", "nan"], "not an amount"),
    ],
)
def test_what_a_budget_can_not_hold_is_refused(head: str, options: list[str], words: str) -> None:
    """Nothing is sent, the exit code is that of an error, and no run is left behind."""
    result = simulate(head, *options)

    assert 2 == result.exit_code
    assert words in result.stderr
    assert not Path("output/paid-simulated").exists()


@pytest.mark.parametrize(
    "options", [[], ["--shard", "0/2", "--per-shard"], ["--journal", "file://{here}/journal"]]
)
def test_a_refused_run_leaves_nothing(options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was refused before it sent anything is not a run: it has no directory, and no later run asks about it."""
    monkeypatch.setenv("POWERTOKENS_API_KEY", "test-key")
    path = manifest("gateway: {base_url: http://127.0.0.1:9}\nbudget: {run: 5 USD}")

    result = runner("run", path, "-o", "out", *(each.format(here=Path.cwd()) for each in options))

    assert (2, True) == (result.exit_code, "no known price" in result.stderr), result.stderr
    assert not Path("out").exists()
    assert () == runs_of(path)


@pytest.mark.parametrize("content", [b"no database at all" * 100, b""])
def test_a_ledger_that_can_not_be_used(content: bytes) -> None:
    """A damaged one is exit 3 before anything is sent; an empty file is a new ledger."""
    Path("spend.db").write_bytes(content)
    Path("spend-simulated.db").write_bytes(content)

    result = simulate(f"prices: {PRICES}\nbudget: {{day: 0 USD, ledger: spend.db}}")

    assert 3 == result.exit_code
    assert ("left as it is" if content else "stopped[budget]") in result.stderr.replace("was left", "left")
    assert content == Path("spend.db").read_bytes()


def test_a_run_that_meets_its_budget() -> None:
    """It stops, says what is left and which jobs still fit, and shows the cost everywhere."""
    head = f"prices: {PRICES}\nbudget: {{run: 1 USD, day: 9 USD}}"

    result = simulate(head, "--json", "--metrics-file", "metrics.prom")

    assert 3 == result.exit_code
    assert (
        "budget.run: 0.80 USD of 1.00 USD used, 0.20 USD left; the next job may cost 0.75 USD"
        in result.stderr
    )
    assert "1 pending job would still fit into 0.20 USD, such as --job short" in result.stderr
    spent = "  spent 0.80 USD, of which 0.20 uncertain and 0.20 for tasks that failed (simulated)\n"
    assert spent in result.stderr
    assert spent in runner("status", "output/paid-simulated").stdout
    assert "submits 2 jobs, at most 0.85 USD" in result.stderr
    summary = json.loads(result.stdout)
    assert {
        "currency": "USD",
        "spent": "0.80",
        "settled": "0.40",
        "failed": "0.20",
        "uncertain": "0.20",
        "reserved": "0.00",
    } == {key: value for key, value in summary["cost"][0].items() if not key.startswith("by_")}
    assert {"wan2.7-t2v": {"attempts": 4, "spent": "0.80", "estimate": "0.80"}} == summary["cost"][0][
        "by_model"
    ]
    _check_files(summary)
    _check_commands()


def _check_files(summary: dict[str, Any]) -> None:
    run_dir = Path("output/paid-simulated")
    lines = [json.loads(line) for line in (run_dir / "results.jsonl").read_text().splitlines()]
    validator = Draft202012Validator(load_catalog().document("result"))
    for line in lines:
        validator.validate(line)
    assert {
        "first": ("0.20", "0.20", "usage"),
        "second": ("0.20", "0.20", "reserved"),
        "third": ("0.20", None, "reserved"),
        "long": None,
    } == {
        line["job_id"]: line["cost"] and tuple(line["cost"][key] for key in ("reserved", "settled", "basis"))
        for line in lines
        if line["job_id"] not in ("fourth", "short")
    }
    charged = sum(
        Decimal(json.loads(line)["charged"])
        for line in (run_dir / "simulator.jsonl").read_text().splitlines()
    )
    assert Decimal("0.80") == charged
    assert summary["cost"] == json.loads((run_dir / "summary.json").read_text())["cost"]
    assert (
        'runner_run_cost{run="paid",currency="USD",state="uncertain"} 0.20'
        in Path("metrics.prom").read_text()
    )
    page = (run_dir / "report.html").read_text()
    assert "0.80 USD" in page
    assert "0.20 uncertain and 0.20 for tasks that failed" in page
    assert '<th scope="col" class="num">estimate</th>' in page
    failed = (run_dir / "failed.yaml").read_text()
    assert 'run: "1.00 USD"' in failed or "run: 1.00 USD" in failed
    assert 0 == runner("validate", run_dir / "failed.yaml").exit_code


def _check_commands() -> None:
    run_dir = Path("output/paid-simulated")
    rerun = runner("rerun", run_dir, "--dry-run").stdout
    assert "submit 3: new, paid attempts, at most 1.05 USD\n" in rerun
    status = json.loads(runner("status", run_dir, "--json").stdout)
    assert "0.80" == status["cost"][0]["spent"]
    assert {"limit": "1.00", "used": "0.80", "left": "0.20", "currency": "USD"} == status["budget"]["run"]
    assert "8.20" == status["budget"]["day"]["left"]
    cost = json.loads(runner("plan", "paid.yaml", "--simulate", "--json").stdout)["cost"]
    assert ("0.85", "0.20") == (cost["sums"][0]["highest"], cost["budget"]["run"]["left"])
    assert "not enough for all jobs" in runner("plan", "paid.yaml", "--simulate").stdout
    runner("report", run_dir, "--junit", "junit.xml")
    properties = {
        each.get("name"): each.get("value")
        for each in ElementTree.parse("junit.xml").findall("testsuite/properties/property")
    }
    assert {"cost.USD.spent": "0.80", "cost.USD.failed": "0.20"}.items() <= properties.items()
    spent = json.loads(runner("spend", "--by", "tag:split", "--json").stdout)
    assert [("test", "0.20"), ("train", "0.60")] == [
        (row["tag:split"], row["spent"]) for row in spent["rows"]
    ]
    assert "spent 0.80 USD, of which" in runner("spend", "output/spend-simulated.db", "--by", "model").stdout
    assert "nothing was spent" in runner("spend", "--since", "2999-01-01").stdout
    settled = runner("resolve", run_dir, "third", "--not-submitted")
    assert 0 == settled.exit_code
    assert "0.60" == json.loads(runner("status", run_dir, "--json").stdout)["cost"][0]["spent"]
    assert "0.60" == json.loads(runner("spend", "--json").stdout)["totals"][0]["spent"]


@pytest.mark.slow
def test_max_cost_bounds_one_process() -> None:
    """Each process may spend this much; the reserved price of a failed task counts."""
    result = simulate(f"prices: {PRICES}", "--max-cost", "0.40")

    assert 3 == result.exit_code
    assert "--max-cost: 0.40 USD of 0.40 USD used" in result.stderr
    again = simulate(f"prices: {PRICES}", "--max-cost", "0.40 USD")
    assert "stopped[budget]" in again.stderr
    with closing(sqlite3.connect("output/paid-simulated/run.db")) as connection:
        assert 4 == connection.execute("SELECT count(*) FROM jobs WHERE attempt > 0").fetchone()[0]


def test_shards_share_the_budget_of_a_run() -> None:
    """Each shard has its part; what nobody can count over machines needs --per-shard."""
    head = f"prices: {PRICES}\nbudget: {{run: 0.50 USD, day: 5 USD}}"

    refused = simulate(head, "--shard", "0/2")
    result = simulate(head, "--shard", "0/2", "--per-shard")

    assert 2 == refused.exit_code
    assert "budget.day can't be counted over all shards" in refused.stderr
    assert "of 0.25 USD" in result.stderr


@pytest.mark.parametrize("arguments", [["--by", "week"], ["--by", "tag:"], ["--since", "yesterday"]])
def test_spend_refuses_what_it_does_not_know(arguments: list[str]) -> None:
    """A key or a day that is none is a usage error."""
    assert 2 == runner("spend", *arguments).exit_code


def test_spend_without_a_ledger() -> None:
    """The message names the file that was looked for, and which runs write it: those with a budget."""
    result = runner("spend")

    assert 2 == result.exit_code
    assert "no ledger at" in result.stderr
    assert "only runs with a budget write one" in result.stderr


def test_a_budget_without_limits_is_an_account() -> None:
    """A run is in the ledger as soon as it has a budget, even one that limits nothing."""
    simulate(f"prices: {PRICES}", "--limit", "1")
    assert not Path("output/spend-simulated.db").exists()
    simulate(f"prices: {PRICES}\nbudget: {{}}", "--limit", "1", "-o", "other")

    assert [1] == [row["attempts"] for row in _spent()["rows"]]


def _spent(ledger: str = "output/spend-simulated.db") -> Any:
    result = runner("spend", ledger, "--by", "model", "--json")
    assert 0 == result.exit_code, result.stderr
    return json.loads(result.stdout)


@pytest.mark.slow
def test_merged_shards_count_once() -> None:
    """What shards have spent is the merged run's from then on: the ledger's sums are the same before and after."""
    head = f"prices: {PRICES}\nbudget: {{run: 5 USD}}"
    for index in range(2):
        simulate(head, "--shard", f"{index}/2", "--per-shard", "--limit", "2", "-o", f"s{index}")
    before = _spent()

    assert 0 == runner("merge", "all", "s0", "s1").exit_code

    assert before == _spent()
    assert before["totals"]
    with closing(sqlite3.connect("output/spend-simulated.db")) as ledger:
        assert 1 == ledger.execute("SELECT count(DISTINCT run) FROM entries").fetchone()[0]
    simulate(head, "-o", "all", "--limit", "0")
    assert before == _spent()


@pytest.mark.slow
def test_a_directory_that_was_moved_continues() -> None:
    """The ledger knows it by its token, wherever it is."""
    head = f"prices: {PRICES}\nbudget: {{run: 5 USD}}"
    simulate(head, "-o", "first", "--limit", "2")
    Path("first").rename("moved")
    assert 1 == runner("resume", "moved").exit_code
