"""Learned rates outlive a run directory, for each gateway and key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner.api.state_dir import MAX_BYTES, read_learned, read_state, save_learned, state_folder, write_state
from runner.store import query
from runner.store.store import Store

GATEWAY, KEYS = "https://api.example", ("k1", "k2")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use a state folder of this test's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "runner"


async def _save(folder: Path, rates: dict[str, float], gateway: str = GATEWAY) -> str | None:
    with Store(folder) as store:
        async with store:
            save_learned(store, rates, gateway, KEYS)
        return query.meta(store.reader).get("learned")


async def test_a_new_directory_starts_with_what_another_learned(tmp_path: Path) -> None:
    """The same gateway and keys, in any order, start with the learned rate; another gateway or key does not."""
    await _save(tmp_path / "monday", {"": 0.5, "model": 0.1})

    assert {"": 0.5, "model": 0.1} == read_learned(None, GATEWAY, reversed(KEYS))
    assert {} == read_learned(None, GATEWAY, ("k1",))
    assert {} == read_learned(None, "https://other.example", KEYS)


async def test_a_rate_that_grew_back_is_forgotten(tmp_path: Path) -> None:
    """`--submit-rate` starts over, and a run that was not held back removes what was learned, for its directory and others."""
    text = await _save(tmp_path / "monday", {"": 0.5})
    assert {"": 0.5} == read_learned(text, GATEWAY, KEYS)

    assert {} == read_learned(text, GATEWAY, KEYS, submit_per_s=1.0)

    text = await _save(tmp_path / "tuesday", {})

    assert {} == read_learned(None, GATEWAY, KEYS)
    assert {} == read_learned(text, GATEWAY, KEYS)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"https://api.example k1 k2": {"": "fast", "m": -1, "n": 2}}', "[" * 9999]
)
def test_whatever_is_in_the_file_does_no_harm(text: str, state: Path) -> None:
    """Only positive numbers are rates; anything else counts as absent."""
    state.mkdir(parents=True)
    (state / "rates.json").write_text(text, encoding="utf-8")

    assert read_learned(None, GATEWAY, KEYS) in ({}, {"n": 2.0})


def test_state_that_cannot_be_kept_is_not_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that can't be made, and a value that is too large, are not kept, and nothing fails."""
    write_state("large", "x" * MAX_BYTES)
    assert read_state("large") is None
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    write_state("any", 1)

    assert read_state("any") is None
    assert tmp_path / "file" / "runner" == state_folder()


@pytest.mark.slow
async def test_only_so_many_accounts_are_kept(tmp_path: Path, state: Path) -> None:
    """The oldest are forgotten."""
    for number in range(103):
        await _save(tmp_path / "run", {"": 1.0}, f"https://{number}.example")

    assert 100 == len(json.loads((state / "rates.json").read_text()))
    assert {} == read_learned(None, "https://2.example", KEYS)
