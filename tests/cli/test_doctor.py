"""`runner doctor`: every check, free of charge."""

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


def test_without_problems(gateway: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a valid key, a gateway and a manifest there is no problem, and no job is submitted."""
    monkeypatch.setenv("POWERTOKENS_API_KEY", "sk-good-key")

    result = runner("doctor", write_manifest(Path("m.yaml"), "a"), "--base-url", gateway.base_url)

    assert (0, "") == (result.exit_code, result.stderr)
    assert "every model of the manifest is offered" in result.stdout
    assert "this clock agrees with the gateway's" in result.stdout
    assert [] == list(gateway.ledger.accepted)


def test_the_key_is_never_shown(gateway: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused key is a problem, and is named by its fingerprint."""
    monkeypatch.setenv("POWERTOKENS_API_KEY", "sk-bad-key-0123456789")

    result = runner("doctor", "--base-url", gateway.base_url)

    assert 1 == result.exit_code
    assert "is refused" in result.stdout
    assert "sk-bad" not in result.stdout


def test_no_key() -> None:
    """The problem names the variable to set."""
    result = runner("doctor")

    assert 1 == result.exit_code
    assert "no API key is set in POWERTOKENS_API_KEY" in result.stdout


def test_an_unreachable_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a problem, and the other checks are made as well."""
    monkeypatch.setenv("POWERTOKENS_API_KEY", "sk-good-key")

    found = _checks(options=RunOptions(base_url="http://127.0.0.1:9"))

    assert found["gateway"].verdict is CheckVerdict.PROBLEM
    assert {"disk", "fsync", "sqlite", "open-files"} <= set(found)


def test_a_proxy_is_used_and_named(gateway: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run would do is tried: the proxy, which is the gateway here, gets the request, and is named without its login."""
    monkeypatch.setenv("POWERTOKENS_API_KEY", "sk-good-key")
    monkeypatch.setenv("HTTP_PROXY", gateway.base_url.replace("http://", "http://user:secret@"))

    found = _checks(options=RunOptions(base_url="http://gateway.example"))

    assert found["proxy"].verdict is CheckVerdict.OK
    assert gateway.base_url in found["proxy"].message
    assert "secret" not in found["proxy"].message
    assert found["key"].verdict is CheckVerdict.OK


def test_a_wrong_clock(gateway: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong clock is found by the Date header of the gateway."""
    monkeypatch.setenv("POWERTOKENS_API_KEY", "sk-good-key")

    found = _checks(options=RunOptions(base_url=gateway.base_url), wall_clock=lambda: 0.0)

    assert found["clock"].verdict is CheckVerdict.WARNING
    assert "behind the gateway's" in found["clock"].message


def test_the_host_of_the_test_environment() -> None:
    """One of the API's documents shows it by mistake, so it gets a warning."""
    found = _checks(options=RunOptions(base_url="https://baze-api.powerbuyin.top"))

    assert found["address"].verdict is CheckVerdict.WARNING


@pytest.mark.parametrize("base_url", ["htp://x", "x.com", "https://me:secret@x.com"])
def test_what_is_no_address_is_a_problem(base_url: str) -> None:
    """Neither `doctor` nor `plan` takes what `run` refuses, and a password in it is not repeated."""
    write_manifest(Path("m.yaml"), "a")

    done = runner("doctor", "--base-url", base_url)
    planned = runner("plan", "m.yaml", "--base-url", base_url)

    assert "problem" in done.stdout + done.stderr
    assert f"the gateway is {base_url}" not in done.stdout + done.stderr
    assert "secret" not in done.stdout + done.stderr + planned.stdout + planned.stderr
    assert (1, 2) == (done.exit_code, planned.exit_code)


def test_a_manifest_with_errors_is_a_problem() -> None:
    """The first error is shown with its position, and the other checks are made as well."""
    manifest = write_manifest(Path("m.yaml"), "a")
    manifest.write_text(manifest.read_text().replace("prompt:", "promt:"))

    found = _checks(manifest)

    assert found["manifest"].verdict is CheckVerdict.PROBLEM
    assert "m.yaml:7:" in found["manifest"].message
    assert "disk" in found


def test_exit_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A manifest or a file of variables that can't be used is exit code 2, as for every command; all else is 1."""
    manifest = write_manifest(Path("m.yaml"), "a")
    absent, no_file = runner("doctor", "n.yaml"), runner("doctor", manifest, "--env-file", "none.env")
    no_key = runner("doctor", manifest)

    assert (2, 2, 1) == (absent.exit_code, no_file.exit_code, no_key.exit_code)
    assert "n.yaml: can't be read: No such file or directory; did you mean 'm.yaml'?" in absent.stdout


def test_an_unwritable_folder_is_a_problem() -> None:
    """A run could not store the videos that it pays for."""
    found = _checks(output=Path("/proc/runs"))

    assert found["disk"].verdict is CheckVerdict.PROBLEM
    assert "/proc can't be written" in found["disk"].message


def test_it_leaves_no_files() -> None:
    """The files that were written to test the disk are deleted."""
    _checks()

    assert [] == list(Path().iterdir())


def test_json() -> None:
    """--json prints each check with its verdict."""
    found = json.loads(runner("doctor", "--json").stdout)

    assert {"name", "verdict", "message", "hint"} == set(found[0])
    assert {"ok", "problem"} <= {check["verdict"] for check in found}
