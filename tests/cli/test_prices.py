"""`runner prices`, and what `plan` says of costs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.command import runner

OWN = """\
version: 1
checked: 2026-11-20
currency: USD
prices:
  - {model: wan2.7-t2v, unit: second, size: {720p: 0.05}}
"""
MANIFEST = """\
version: 1
prices: prices.yaml
jobs:
  - id: a-${n}
    repeat: 3
    request: {model: wan2.7-t2v, prompt: 'A kitten ${n}', size: 720p}
  - {id: b, request: {model: wan3.0-video, prompt: A kitten, seconds: -1, size: 480p}}
  - {id: c, request: {model: wan2.7-t2v, prompt: A kitten}}
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("prices.yaml").write_text(OWN, encoding="utf-8")
    Path("m.yaml").write_text(MANIFEST, encoding="utf-8")


def test_shipped_prices() -> None:
    """Each size has its price, the promotion is over, and the table's age and the unknown models are told."""
    found = json.loads(runner("prices", "--json").stdout)

    assert ("USD", "2026-10-09", False) == tuple(
        found["tables"][0][key] for key in ("currency", "checked", "own")
    )
    assert found["tables"][0]["age_days"] > 40
    wan = {each["size"]: each["price"] for each in found["prices"] if each["model"] == "wan3.0-video"}
    assert {"480p": "0.05", "720p": "0.10", "1080p": "0.20"} == wan
    assert "wan2.7-i2v" in {each["model"] for each in found["unknown"]}
    text = runner("prices").stdout
    assert "days ago" in text
    assert "0.121 USD a second (input_video: false)" in text


def test_own_prices_come_first() -> None:
    """With a manifest, its own table counts, and sizes without a price are unknown."""
    found = json.loads(runner("prices", "m.yaml", "--json").stdout)

    assert [True, False] == [table["own"] for table in found["tables"]]
    assert [("wan2.7-t2v", "720p", True)] == [
        (each["model"], each["size"], each["own"]) for each in found["prices"] if each["own"]
    ]
    assert {"model": "wan2.7-t2v", "sizes": ["1080p"]} in found["unknown"]


def test_plan_shows_units_and_sums() -> None:
    """Clips and seconds by model and size always; the sum where prices are known; and how old they are."""
    cost = json.loads(runner("plan", "m.yaml", "--json").stdout)["cost"]

    assert [
        {"model": "wan2.7-t2v", "size": "720p", "clips": 3, "seconds": 15, "open_ended": 0},
        {"model": "wan3.0-video", "size": "480p", "clips": 1, "seconds": 0, "open_ended": 1},
        {"model": "wan2.7-t2v", "size": "1080p", "clips": 1, "seconds": 5, "open_ended": 0},
    ] == cost["billable"]
    assert [{"currency": "USD", "jobs": 4, "expected": "2.25", "highest": "2.25"}] == cost["sums"]
    assert {"the table has no price of wan2.7-t2v in 1080p": 1} == cost["unknown"]
    text = runner("plan", "m.yaml").stdout
    assert "cost: at most 2.25 USD for 4 jobs" in text
    assert "unknown cost: 1 job; the table has no price of wan2.7-t2v in 1080p" in text
    assert "wan2.7-t2v in 720p: 3 clips, 15 s" in text


@pytest.mark.parametrize(
    ("prices", "words"),
    [
        ("none.yaml", "can't be read"),
        ("{version: 1, checked: 2026-11-20, currency: USD, prices: []}", "prices"),
        ("5", "prices"),
    ],
)
def test_a_table_that_is_wrong_is_an_error_of_the_manifest(prices: str, words: str) -> None:
    """Nothing is sent while the prices can't be read, and the message has the place."""
    Path("m.yaml").write_text(MANIFEST.replace("prices.yaml", prices), encoding="utf-8")

    result = runner("validate", "m.yaml")

    assert 2 == result.exit_code
    assert words in result.stdout
    assert result.stdout.startswith("m.yaml:2:")


def test_problems_of_a_price_file_have_their_own_places() -> None:
    """A mistake in the file is reported where it is."""
    Path("prices.yaml").write_text(OWN.replace("0.05", "-0.05"), encoding="utf-8")

    result = runner("validate", "m.yaml")

    assert 2 == result.exit_code
    assert "prices.yaml:5:52: prices[0].size.720p: '-0.05' is not an amount" in result.stdout
