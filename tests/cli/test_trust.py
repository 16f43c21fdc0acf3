"""Where the key goes, and whose commands are started: only what this machine's user named."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from runner.api.run_facts import command_folder
from runner.simulator.server import Simulator
from tests.cli.command import CommandResult, runner
from tests.cli.test_rerun_results import line, write

MANIFEST = """
version: 1
name: kittens
{header}
jobs:
  - {{id: a, request: {{model: seedance-1-0-pro-250528, prompt: a kitten, seconds: 4, size: 480p}}}}
"""
QUICKLY = ("--submit-rate", "100/s", "--max-runtime", "500ms", "--drain-time", "0s")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to an empty folder, and set a key."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POWERTOKENS_API_KEY", "sk-good-key")
    monkeypatch.delenv("POWERTOKENS_BASE_URL", raising=False)
    return tmp_path


def write_manifest(header: str = "") -> None:
    """Write a manifest of one job."""
    Path("m.yaml").write_text(MANIFEST.format(header=header))


def submitted(gateway: Simulator) -> int:
    """Count the accepted submissions."""
    return len(gateway.ledger.accepted)


@pytest.mark.slow
def test_results_file_does_not_decide_where_the_key_goes(
    gateway: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A gateway that only the results name gets nothing, and a `.env` beside them does not name it; an option or the
    environment does. A dry run shows the gateway.
    """
    write(line("a", "failed", gateway=gateway.base_url))
    Path(".env").write_text(f"POWERTOKENS_BASE_URL={gateway.base_url}\n")

    dry = runner("rerun", "results.jsonl", "--dry-run")
    refused = runner("rerun", "results.jsonl", "-o", "out", *QUICKLY)

    assert 0 == dry.exit_code
    assert dry.stderr.splitlines()[1] == f"gateway: {gateway.base_url} (named by results.jsonl)"
    assert 2 == refused.exit_code
    assert f"--base-url {gateway.base_url}" in refused.stderr
    assert 0 == submitted(gateway)
    assert not Path("out").exists()

    monkeypatch.setenv("POWERTOKENS_BASE_URL", gateway.base_url)
    named = runner("rerun", "results.jsonl", "-o", "out", *QUICKLY)

    assert named.stderr.splitlines()[1] == f"gateway: {gateway.base_url} (named by POWERTOKENS_BASE_URL)"
    assert 1 == submitted(gateway), named.stderr


def test_key_of_a_file_beside_results_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A `.env` beside a results file does not count; one that an option names does."""
    monkeypatch.delenv("POWERTOKENS_API_KEY")
    write(line("a", "failed", gateway="https://api.powertokens.ai"))
    Path(".env").write_text("POWERTOKENS_API_KEY=sk-good-key\n")

    done = runner("rerun", "results.jsonl", "-o", "out")

    assert 2 == done.exit_code
    assert "no API key is set" in done.stderr


@pytest.mark.slow
def test_run_directory_does_not_decide_where_the_key_goes(gateway: Simulator) -> None:
    """
    A run continues at the gateway that its manifest names; without the manifest, the directory alone does not name it.
    """
    write_manifest(f"gateway: {{base_url: '{gateway.base_url}'}}")
    runner("run", "m.yaml", "-o", "out", "--max-runtime", "1ms", "--drain-time", "0s")

    named = runner("resume", "out", *QUICKLY)
    Path("m.yaml").unlink()
    refused = [runner("resume", "out", *QUICKLY), runner("rerun", "out", *QUICKLY)]
    dry = runner("rerun", "out", "--dry-run")

    assert named.stderr.splitlines()[1] == f"gateway: {gateway.base_url} (named by the manifest)"
    assert [2, 2] == [done.exit_code for done in refused]
    assert all(f"--base-url {gateway.base_url}" in done.stderr for done in refused)
    assert f"gateway: {gateway.base_url} (named by out)" in dry.stderr
    again = runner("resume", "out", "--base-url", gateway.base_url, *QUICKLY)
    assert again.stderr.splitlines()[1] == f"gateway: {gateway.base_url} (named by --base-url)"


@pytest.mark.slow
def test_command_to_continue_names_a_gateway_that_only_an_option_named(gateway: Simulator) -> None:
    """
    The command that is printed at the end works as it is.
    """
    write_manifest()

    done = runner("run", "m.yaml", "-o", "out", "--base-url", gateway.base_url, *QUICKLY)

    assert f"runner resume out --base-url {gateway.base_url}" in done.stderr


@pytest.mark.slow
def test_env_file_beside_a_manifest_sets_keys_and_no_addresses(
    gateway: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A `.env` beside a manifest may set the key; its gateway and its proxy count only if an option names the file.
    """
    monkeypatch.delenv("POWERTOKENS_API_KEY")
    write_manifest(f"gateway: {{base_url: '{gateway.base_url}'}}")
    Path(".env").write_text(
        "POWERTOKENS_API_KEY=sk-good-key\nPOWERTOKENS_BASE_URL=http://127.0.0.1:9\nhttps_proxy=http://127.0.0.1:9\n"
    )

    done = runner("run", "m.yaml", "-o", "out", *QUICKLY)
    planned = runner("plan", "m.yaml", "-v", "--env-file", ".env", "-o", "other")

    assert "ignored POWERTOKENS_BASE_URL, https_proxy" in done.stderr
    assert 1 == submitted(gateway), done.stderr
    assert "gateway.base_url http://127.0.0.1:9 (environment)" in " ".join(planned.stdout.split())


@pytest.mark.parametrize("command", ["plan", "doctor", "rerun"])
def test_warning_of_a_key_that_travels_unencrypted(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Each command that uses a gateway warns if the key would travel to it unencrypted, whatever names it.
    """
    monkeypatch.delenv("POWERTOKENS_API_KEY")
    write_manifest()
    write(line("a", "failed"))
    arguments = ("results.jsonl", "--dry-run") if command == "rerun" else ("m.yaml",)

    done = runner(command, *arguments, "--base-url", "http://gateway.invalid")

    assert "the key travels to gateway.invalid unencrypted" in done.stdout + done.stderr


def test_run_warns_of_a_key_that_travels_unencrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A run warns too, before it needs a key.
    """
    monkeypatch.delenv("POWERTOKENS_API_KEY")
    write_manifest()

    done = runner("run", "m.yaml", "--base-url", "http://gateway.invalid")

    assert 2 == done.exit_code
    assert "the key travels to gateway.invalid unencrypted" in done.stderr


def test_variable_that_is_not_named_like_a_key_is_a_warning() -> None:
    """
    `api_keys` with a variable that probably holds something else is a warning of `validate`.
    """
    write_manifest("gateway: {api_keys: [AWS_SECRET, OUR_TOKEN, MY_KEY, MY_KEYS]}")

    done = runner("validate", "m.yaml", "--format", "json")

    (problem,) = json.loads(done.stdout)["problems"]
    assert ("warning", "AWS_SECRET") == (problem["severity"], problem["message"].split("'")[1])


def resume_with(*options: str) -> CommandResult:
    """Resume the copied run directory."""
    return runner("resume", "copy", *QUICKLY, *options)


@pytest.mark.slow
def test_command_of_a_foreign_directory_needs_trust(gateway: Simulator) -> None:
    """
    A notification's command that only the run directory names is not started without `--trust`.
    """
    command = [sys.executable, "-c", "import sys; open('ran', 'a').write('x')"]
    header = f"gateway: {{base_url: '{gateway.base_url}'}}\nnotify: [{{on: [finish], command: {json.dumps(command)}}}]"
    write_manifest(header)
    runner("run", "m.yaml", "-o", "out", "--max-runtime", "1ms", "--drain-time", "0s")
    Path("out").rename("copy")
    Path("m.yaml").write_text(MANIFEST.format(header=header.partition("\n")[0]))
    Path("ran").unlink(missing_ok=True)

    refused = resume_with()

    assert not Path("ran").exists()
    assert "is not started: only the run directory names it" in refused.stderr
    resume_with("--trust")
    assert Path("ran").exists()


@pytest.mark.slow
def test_command_begins_in_the_folder_of_the_manifest(gateway: Simulator) -> None:
    """
    It finds what is beside the manifest, wherever `run` or `resume` was typed, and the run directory by an absolute path.
    """
    folder = Path("manifests")
    folder.mkdir()
    (folder / "tell.sh").write_text("cat > told.json")
    header = f"gateway: {{base_url: '{gateway.base_url}'}}\nnotify: {{command: [sh, tell.sh]}}"
    (folder / "m.yaml").write_text(MANIFEST.format(header=header))

    for command in (("run", "manifests/m.yaml", "-o", "out"), ("resume", "out")):
        done = runner(*command, "--max-runtime", "1ms", "--drain-time", "0s")

        assert "notification failed" not in done.stderr
        assert str(Path("out").absolute()) == json.loads((folder / "told.json").read_text())["run_dir"]
        (folder / "told.json").unlink()
    # What a run directory has of a manifest was not written for its folder.
    assert None is command_folder("out/failed.yaml")
    # Nor is a folder used that can't be looked at, such as somebody else's.
    assert None is command_folder(f"{'x' * 300}/m.yaml")


@pytest.mark.slow
def test_webhook_of_a_foreign_directory_needs_trust(gateway: Simulator) -> None:
    """
    The summary goes to an address that only the run directory names not without `--trust`.
    """
    hook = "notify: [{on: [finish], webhook: 'http://127.0.0.1:1/hook'}]"
    base_url = f"gateway: {{base_url: '{gateway.base_url}'}}"
    write_manifest(f"{base_url}\n{hook}")
    runner("run", "m.yaml", "-o", "out", "--max-runtime", "1ms", "--drain-time", "0s")
    Path("out").rename("copy")
    Path("m.yaml").write_text(MANIFEST.format(header=base_url))

    refused, trusted = resume_with(), resume_with("--trust")

    assert "the webhook at 127.0.0.1 is not called: only the run directory names it" in refused.stderr
    assert "notification failed" not in refused.stderr
    assert "notification failed: the webhook at 127.0.0.1 can't be reached" in trusted.stderr


def test_run_directory_is_named_first(gateway: Simulator) -> None:
    """
    `resume` and `rerun` say where the run is before anything else, as `run` does.
    """
    write_manifest(f"gateway: {{base_url: '{gateway.base_url}'}}")
    runner("run", "m.yaml", "-o", "copy", "--max-runtime", "1ms", "--drain-time", "0s")
    results = ("copy/results.jsonl", "-o", "new", "--base-url", gateway.base_url)

    for words, run_dir in (
        (("resume", "copy", "--limit", "0"), "copy"),
        (("rerun", "copy", "--limit", "0"), "copy"),
        (("rerun", "copy", "--dry-run"), "copy"),
        (("rerun", *results, "--limit", "0"), "new"),
        (("rerun", *results, "--dry-run"), "new"),
    ):
        assert f"run directory: {run_dir}" == runner(*words).stderr.splitlines()[0]


@pytest.mark.slow
def test_command_of_the_own_manifest_is_started(gateway: Simulator) -> None:
    """
    A notification's command that the run's manifest names still is started when the run is resumed.
    """
    command = [sys.executable, "-c", "import sys; open('ran', 'a').write('x')"]
    write_manifest(
        f"gateway: {{base_url: '{gateway.base_url}'}}\nnotify: [{{on: [finish], command: {json.dumps(command)}}}]"
    )
    runner("run", "m.yaml", "-o", "copy", "--max-runtime", "1ms", "--drain-time", "0s")
    Path("ran").unlink(missing_ok=True)

    resume_with()

    assert Path("ran").exists()


def test_rerun_of_a_perfect_night_has_nothing_to_do() -> None:
    """
    If every job of a results file succeeded, a rerun is done: exit code 0, no key is needed, nothing is written.
    """
    write(
        line("a", "succeeded", error=None, gateway="http://127.0.0.1:9"), line("b", "succeeded", error=None)
    )

    done = runner("rerun", "results.jsonl", "-o", "out", "--json")

    assert 0 == done.exit_code, done.stderr
    assert "nothing to do, all 2 jobs succeeded" in done.stderr
    assert {"succeeded": 2} == {
        state: count for state, count in json.loads(done.stdout)["by_status"].items() if count
    }
    assert not Path("out").exists()
    dry = runner("rerun", "results.jsonl", "--dry-run", "--json")
    assert (0, 0) == (dry.exit_code, json.loads(dry.stdout)["to_submit"])


def test_copies_of_one_file_in_any_order_pay_for_no_success(folder: Path) -> None:
    """
    A success counts although an older copy of the file, in which the job failed, comes behind it.
    """
    attempt = line("a", "failed")["attempts"][0]
    newer = line("a", "succeeded", error=None, attempts=[attempt, {**attempt, "number": 2}])
    write(newer, line("a", "failed"), line("b", "failed"))

    done = runner("rerun", "results.jsonl", "--dry-run", "--json")

    assert 1 == json.loads(done.stdout)["to_submit"], done.stderr
