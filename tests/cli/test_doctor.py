"""`doctor`: each thing that it looks at, and nothing that costs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner.api.doctor import Check, CheckVerdict, doctor
from runner.api.options import RunOptions
from runner.simulator.server import Simulator
from tests.api.rundir import write_manifest
from tests.cli.command import runner


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("POWERTOKENS_API_KEY", "POWERTOKENS_API_KEYS", "POWERTOKENS_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def _checks(manifest: Path | None = None, **arguments: object) -> dict[str, Check]:
    return {check.name: check for check in doctor(manifest, **arguments)}  # type: ignore[arg-type]


def test_all_is_well(gateway: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a good key, a gateway and a manifest, nothing is a problem, and no job was submitted."""
    monkeypatch.setenv("POWERTOKENS_API_KEY", "sk-good-key")

    ran = runner("doctor", write_manifest(Path("m.yaml"), "a"), "--base-url", gateway.base_url)

    assert (0, "") == (ran.code, ran.err)
    assert "every model of the manifest is offered" in ran.out
    assert "this clock agrees with the gateway's" in ran.out
    assert [] == list(gateway.ledger.accepted)


def test_the_key_is_never_shown(gateway: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused key is named by its fingerprint, and that is a problem with a way out."""
    monkeypatch.setenv("POWERTOKENS_API_KEY", "sk-bad-key-0123456789")

    ran = runner("doctor", "--base-url", gateway.base_url)

    assert ran.code == 1
    assert "is refused" in ran.out
    assert "sk-bad" not in ran.out


def test_no_key_names_the_variable() -> None:
    """The first thing that a new user meets says what to do."""
    ran = runner("doctor")

    assert ran.code == 1
    assert "no API key is set in POWERTOKENS_API_KEY" in ran.out


def test_a_gateway_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so and goes on with the other checks."""
    monkeypatch.setenv("POWERTOKENS_API_KEY", "sk-good-key")

    found = _checks(options=RunOptions(base_url="http://127.0.0.1:9"))

    assert found["gateway"].verdict is CheckVerdict.PROBLEM
    assert {"disk", "fsync", "sqlite", "open-files"} <= set(found)


def test_a_clock_that_is_wrong(gateway: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour too early is found by the gateway's Date."""
    monkeypatch.setenv("POWERTOKENS_API_KEY", "sk-good-key")

    found = _checks(options=RunOptions(base_url=gateway.base_url), wall_clock=lambda: 0.0)

    assert found["clock"].verdict is CheckVerdict.WARNING
    assert "behind the gateway's" in found["clock"].message


def test_the_test_host_is_warned_of() -> None:
    """One of the API's documents shows it by mistake."""
    found = _checks(options=RunOptions(base_url="https://baze-api.powerbuyin.top"))

    assert found["address"].verdict is CheckVerdict.WARNING


def test_a_manifest_with_errors_is_a_problem() -> None:
    """The first error is shown with its place, and the other checks are made all the same."""
    manifest = write_manifest(Path("m.yaml"), "a")
    manifest.write_text(manifest.read_text().replace("prompt:", "promt:"))

    found = _checks(manifest)

    assert found["manifest"].verdict is CheckVerdict.PROBLEM
    assert "m.yaml:7:" in found["manifest"].message
    assert "disk" in found


def test_an_unwritable_folder_is_a_problem() -> None:
    """A run could not keep what it pays for."""
    found = _checks(output=Path("/proc/runs"))

    assert found["disk"].verdict is CheckVerdict.PROBLEM
    assert "/proc can't be written" in found["disk"].message


def test_it_leaves_nothing_behind() -> None:
    """The files that were written to try the disk are gone."""
    _checks()

    assert [] == list(Path().iterdir())


def test_json() -> None:
    """A program gets each check with its verdict."""
    found = json.loads(runner("doctor", "--json").out)

    assert {"name", "verdict", "message", "hint"} == set(found[0])
    assert {"ok", "problem"} <= {check["verdict"] for check in found}
