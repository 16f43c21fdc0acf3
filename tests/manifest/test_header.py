"""The header of a manifest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.core.settings import (
    DEFAULT_BASE_URL,
    Limits,
    ModelLimits,
    Notify,
    PollPolicy,
    RetryPolicy,
    Settings,
    Timeouts,
)
from runner.manifest.document import open_document
from runner.manifest.header import read_header
from runner.manifest.settings import Header
from runner.schema.catalog import load_catalog
from tests.manifest.helpers import TODAY, read_document

GOOD = Path(__file__).parent / "good"


def read(path: Path, text: str) -> tuple[Header, list[str]]:
    """Read the header of a manifest with this text, and what is wrong with it."""
    path.write_text(text, encoding="utf-8")
    problems: list[str] = []
    document = open_document(path, lambda problem: problems.append(str(problem)))
    return read_header(document, lambda problem: problems.append(str(problem)), {}, today=TODAY), problems


def test_every_key_is_read() -> None:
    """Each key of the header sets its setting, in seconds, bytes and calls per second."""
    read_all, _ = read_document(GOOD / "everything.yaml")

    assert read_all is not None
    header = read_all[0]
    assert header.name == "kittens-2026-11-21"
    assert header.settings.base_url == "https://api.powertokens.ai"
    assert header.settings.key_names == ("POWERTOKENS_API_KEY", "TEAM_B_KEY")
    assert header.settings.limits == Limits(
        submit_per_s=1.0,
        poll_per_s=10.0,
        in_flight=8,
        downloads=4,
        models={"wan2.2-kf2v-flash": ModelLimits(in_flight=2, submit_per_s=2.0)},
    )
    assert header.settings.poll == PollPolicy(first_s=10, interval_s=15, max_interval_s=60, timeout_s=3600)
    assert header.settings.timeouts == Timeouts(
        connect_s=10, submit_s=120, poll_s=30, stall_s=60, unknown_task_s=120
    )
    assert header.settings.retry == RetryPolicy(attempts=6, base_s=2, cap_s=60)
    assert header.settings.assets.max_bytes == 4_000_000_000
    assert header.settings.assets.hosts == ("cdn.example.com",)
    assert header.settings.notify == (
        Notify(on=("failure", "uncertain"), webhook="https://hooks.example.com/x"),
        Notify(on=("finish",), command=("notify-send", "kittens")),
    )
    assert header.settings.reroll == {"output_moderation": 2}
    assert header.defaults.request == {"watermark": False}
    assert header.defaults.models == {"seedance-1-5-pro-251215": {"size": "720p", "generate_audio": False}}
    assert header.defaults.metadata == {"project": "kittens"}
    assert header.variables.values["style"] == "cinematic"


def test_defaults(tmp_path: Path) -> None:
    """A manifest needs no settings; its run has the name of the file."""
    header, problems = read(tmp_path / "my: kittens.yaml", "version: 1\njobs: [{id: a}]\n")

    assert header.settings == Settings(name="my- kittens")
    assert problems == []


def test_keys_after_the_jobs() -> None:
    """Keys after the jobs apply like those before them."""
    read_all, _ = read_document(GOOD / "jobs_first.yaml")

    assert read_all is not None
    assert read_all[0].defaults.request == {"size": "720p"}
    assert read_all[0].variables.values["shared"] == {"seed": 1}


def test_invalid_keys_keep_their_defaults(tmp_path: Path) -> None:
    """With one invalid duration, the other settings and the jobs are read nevertheless."""
    text = "version: 1\npoll: {first: 5, interval: 20s}\njobs: [{id: a}]\n"
    header, problems = read(tmp_path / "a.yaml", text)

    assert header.settings.poll == PollPolicy(first_s=10, interval_s=20)
    assert len(problems) == 1


@pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1:8080", "[::1]:8080"])
def test_loopback_needs_no_encryption(tmp_path: Path, host: str) -> None:
    """A key may be sent unencrypted within the machine."""
    text = f"version: 1\ngateway: {{base_url: 'http://{host}'}}\njobs: [{{id: a}}]\n"

    assert read(tmp_path / "a.yaml", text)[1] == []


def test_the_schema_has_the_defaults_of_the_settings(tmp_path: Path) -> None:
    """The reference in manifests/README.md comes from the schema, whose defaults must be those of the code."""
    properties = load_catalog().document("manifest")["properties"]
    defaults = {
        section: {
            key: rules["default"]
            for key, rules in properties[section]["properties"].items()
            if "default" in rules and key != "base_url"
        }
        for section in ("gateway", "limits", "poll", "timeouts", "retry", "assets")
    }

    header, problems = read(
        tmp_path / "a.yaml", json.dumps({"version": 1, **defaults, "jobs": [{"id": "a"}]})
    )

    assert header.settings == Settings(name="a")
    assert problems == []
    assert properties["gateway"]["properties"]["base_url"]["default"] == DEFAULT_BASE_URL


def test_every_key_of_the_schema_is_described_with_an_example() -> None:
    """Editors show the descriptions, and manifests/README.md is generated from them."""

    def undescribed(schema: Any, path: str) -> list[str]:
        keys: list[str] = []
        for key, rules in schema.get("properties", {}).items():
            has_example = "examples" in rules or "properties" in rules or key == "jobs"
            if "description" not in rules or not has_example:
                keys.append(f"{path}.{key}")
            keys += undescribed(rules, f"{path}.{key}")
        return keys

    manifest = load_catalog().document("manifest")

    assert undescribed(manifest, "manifest") == []
    assert undescribed(manifest["$defs"]["job"], "job") == []
    assert undescribed(manifest["$defs"]["notify"], "notify") == []
    assert (
        undescribed(
            manifest["properties"]["limits"]["properties"]["models"]["additionalProperties"], "models"
        )
        == []
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
KEYS = (
    "first",
    "interval",
    "submit",
    "poll",
    "models",
    "attempts",
    "on",
    "base_url",
    "api_keys",
    "hosts",
    "request",
)
SECTIONS = (
    "name",
    "gateway",
    "limits",
    "poll",
    "timeouts",
    "retry",
    "defaults",
    "vars",
    "assets",
    "notify",
    "reroll",
)


@pytest.mark.slow
@settings(max_examples=60)
@given(
    header=st.dictionaries(
        st.sampled_from(SECTIONS), JSON | st.dictionaries(st.sampled_from(KEYS), JSON, max_size=3), max_size=4
    )
)
def test_random_headers(tmp_path_factory: pytest.TempPathFactory, header: dict[str, object]) -> None:
    """Any header is read or reported, without a traceback."""
    path = tmp_path_factory.getbasetemp() / "random.yaml"

    read(path, yaml.safe_dump({**header, "jobs": [{"id": "a"}]}, default_style='"', allow_unicode=True))


@pytest.mark.parametrize(
    "setting",
    [
        r'prices: "a\0b"',
        r'schemas: ["a\0b"]',
        r'budget: {run: 1 USD, ledger: "a\0b"}',
        r'on_asset: ["a\0b"]',
        r'notify: {on: [failure], command: ["a\0b"]}',
    ],
)
def test_nul_in_settings(tmp_path: Path, setting: str) -> None:
    """No file and no command has a NUL character in its name, and asking for one raises ValueError."""
    _, problems = read(tmp_path / "nul.yaml", f"{setting}\njobs: [{{id: a}}]\n")

    assert any("has a NUL character" in problem for problem in problems)
