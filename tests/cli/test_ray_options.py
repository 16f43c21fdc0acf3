"""What `run --engine ray` refuses before anything is done."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.cli.command import runner

MANIFEST = """\
version: 1
name: many
jobs:
  - {id: first, request: {model: wan2.7-t2v, prompt: A kitten}}
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.yaml").write_text(MANIFEST, encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--engine", "ray"], "--engine ray needs --workers"),
        (["--workers", "2"], "--engine ray needs --workers"),
        (["--shards", "2"], "--shards and --ray-address need --engine ray"),
        (["--engine", "ray", "--workers", "0"], "0 is not in the range"),
        (["--engine", "ray", "--workers", "2", "--shard", "0/2"], "--shard does not go with --engine ray"),
        (["--engine", "ray", "--workers", "2", "--job", "first"], "--job does not go with --engine ray"),
        (["--engine", "ray", "--workers", "2", "--retry-failed"], "--retry-failed does not go with"),
        (["--engine", "ray", "--workers", "2", "--ray-address", "auto"], "need a journal"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: list[str], message: str) -> None:
    """
    Each is exit code 2 with what to do, and nothing is written.
    """
    done = runner("run", "m.yaml", "--simulate", *options)

    assert 2 == done.exit_code
    assert message in " ".join(done.stderr.split())
    assert not Path("output").exists()


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_the_extra_is_named() -> None:
    """
    The message says what to install, and the way without it.
    """
    done = runner("run", "m.yaml", "--simulate", "--engine", "ray", "--workers", "2")

    assert 2 == done.exit_code
    assert "pip install '.[ray]'" in done.stderr
    assert not Path("output").exists()
